//! Two traces of the same suite and teacher, side by side: what became better, what worse, and where it began.
//!
//! **Invariant:** only lines that both traces have are compared, and both must have them with the same teacher: a
//! difference between teachers is no difference between students.

use crate::gates::GateError;
use crate::records::RecordError;
use serde::Serialize;

use super::record::TraceRecord;
use crate::stats::Share;
use crate::{Error, Result};

/// How the second trace differs from the first.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct TraceDiff {
    pub compared: u64,
    /// Agreement with the teacher in the first trace.
    pub first_agreement: Share,
    /// The same in the second.
    pub second_agreement: Share,
    pub agreement_change: f64,
    /// Lines that agreed with the teacher in the first trace only.
    pub lost: u64,
    /// Lines that agree in the second trace only.
    pub gained: u64,
    /// Lines on which the two students chose different experts.
    pub rerouted: u64,
    /// Change of valid citations.
    pub valid_citations_change: i64,
    /// Prompts answered in the first trace and refused in the second.
    pub newly_refused: Vec<String>,
    /// The other way round.
    pub newly_answered: Vec<String>,
    /// By prompt, in the order of the traces.
    pub prompts: Vec<PromptDiff>,
}

/// How one prompt differs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct PromptDiff {
    pub prompt_id: String,
    /// The first token and layer on which the two students chose different experts.
    pub first_divergence: Option<TracePosition>,
    /// Lines that agreed with the teacher in the first trace only.
    pub lost: u64,
    /// Lines that agree in the second trace only.
    pub gained: u64,
    /// Why the answer ended, where that differs: first, second.
    pub stop_reasons: Option<[String; 2]>,
}

/// A place in a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TracePosition {
    /// Position in prompt + the teacher's answer.
    pub token_idx: u64,
    /// Index of the layer in the model.
    pub layer_idx: u32,
}

/// Compares two traces, as [`crate::records::trace::TraceReader`] hands them out, line by line. Memory: a line per prompt.
///
/// # Errors
/// Errors of reading; [`RecordError::TraceMismatch`] for traces that do not have the same prompts, tokens, layers and
/// teacher; [`GateError::NoCases`] for empty ones.
pub fn diff(
    first: impl IntoIterator<Item = Result<TraceRecord>>,
    second: impl IntoIterator<Item = Result<TraceRecord>>,
) -> Result<TraceDiff> {
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let (mut diff, mut agreed) = (TraceDiff::default(), [0; 2]);
    while let Some(pair) = next_pair(&mut first, &mut second)? {
        for (agreed, record) in agreed.iter_mut().zip(&pair) {
            *agreed += u64::from(record.routing.agreement);
        }
        diff.push(pair);
    }
    let agreement = |count| Share::of(count, diff.compared).ok_or(Error::Gates(GateError::NoCases));
    (diff.first_agreement, diff.second_agreement) = (agreement(agreed[0])?, agreement(agreed[1])?);
    diff.agreement_change = diff.second_agreement.value - diff.first_agreement.value;
    Ok(diff)
}

/// The next line of both, which must be about the same; `None` when both end.
fn next_pair(
    first: &mut impl Iterator<Item = Result<TraceRecord>>,
    second: &mut impl Iterator<Item = Result<TraceRecord>>,
) -> Result<Option<[TraceRecord; 2]>> {
    let place = |record: &TraceRecord| {
        format!("prompt {}, token {}, layer {}", record.prompt_id, record.token_idx, record.layer_idx)
    };
    let end = || "its end".to_owned();
    let mismatch = |first, second| Err(RecordError::TraceMismatch { first, second }.into());
    match (first.next().transpose()?, second.next().transpose()?) {
        (None, None) => Ok(None),
        (Some(a), None) => mismatch(place(&a), end()),
        (None, Some(b)) => mismatch(end(), place(&b)),
        (Some(a), Some(b)) => {
            if place(&a) != place(&b) || a.is_final() != b.is_final() {
                let of = |record: &TraceRecord| {
                    let last = if record.is_final() { " (the last of its prompt)" } else { "" };
                    format!("{}{last}", place(record))
                };
                return mismatch(of(&a), of(&b));
            }
            if a.routing.teacher_expert_ids != b.routing.teacher_expert_ids {
                let teacher = |record: &TraceRecord| {
                    format!("{} with the teacher's experts {:?}", place(record), record.routing.teacher_expert_ids)
                };
                return mismatch(teacher(&a), teacher(&b));
            }
            Ok(Some([a, b]))
        }
    }
}

impl TraceDiff {
    /// Counts the differences of a line; the agreements are counted by the caller.
    fn push(&mut self, [a, b]: [TraceRecord; 2]) {
        if self.prompts.last().is_none_or(|prompt| prompt.prompt_id != a.prompt_id) {
            self.prompts.push(PromptDiff { prompt_id: a.prompt_id.clone(), ..PromptDiff::default() });
        }
        let Some(prompt) = self.prompts.last_mut() else { return };
        self.compared += 1;
        let lost = u64::from(a.routing.agreement && !b.routing.agreement);
        let gained = u64::from(!a.routing.agreement && b.routing.agreement);
        (self.lost, self.gained) = (self.lost + lost, self.gained + gained);
        (prompt.lost, prompt.gained) = (prompt.lost + lost, prompt.gained + gained);
        if a.routing.topk_expert_ids != b.routing.topk_expert_ids {
            self.rerouted += 1;
            prompt.first_divergence.get_or_insert(TracePosition { token_idx: a.token_idx, layer_idx: a.layer_idx });
        }
        let valid = |record: &TraceRecord| record.citations.iter().filter(|citation| citation.valid).count();
        self.valid_citations_change += valid(&b) as i64 - valid(&a) as i64;
        let refused = |record: &TraceRecord| record.refusal.as_ref().map(|refusal| refusal.did_refuse);
        match (refused(&a), refused(&b)) {
            (Some(false), Some(true)) => self.newly_refused.push(a.prompt_id.clone()),
            (Some(true), Some(false)) => self.newly_answered.push(a.prompt_id.clone()),
            _ => {}
        }
        if a.stop_reason != b.stop_reason
            && let (Some(a), Some(b)) = (a.stop_reason, b.stop_reason)
        {
            prompt.stop_reasons = Some([a, b]);
        }
    }
}
