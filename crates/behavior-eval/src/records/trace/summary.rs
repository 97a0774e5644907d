//! The figures of one trace.
//!
//! **Invariant:** they come from the lines alone and equal the routing gate's, margins apart, which traces do not hold.

use std::collections::BTreeMap;

use serde::Serialize;

use super::record::TraceRecord;
use crate::Result;
use crate::gates::{Cases, GateError, LayerFigures, RoutingFigures};
use crate::stats::{Moments, Share};

/// The figures of a trace.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct TraceSummary {
    pub records: u64,
    pub routing: RoutingFigures,
    pub layers: Vec<LayerFigures>,
    /// By prompt, in the order of the trace.
    pub prompts: Vec<PromptSummary>,
    /// How often answers ended for each reason.
    pub stop_reasons: BTreeMap<String, u64>,
    /// Citations, and those that are valid; absent when there is none.
    pub valid_citations: Option<Share>,
    /// Answers whose prompt is gated for refusal, and those that are right; absent when there is none.
    pub right_refusals: Option<Share>,
    pub refusals: u64,
    /// Mean of the coherence scores; absent when no line has one.
    pub coherence: Option<f64>,
}

/// One prompt of a trace.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct PromptSummary {
    pub prompt_id: String,
    /// Tokens and layers with the same set of experts.
    pub agreement: Share,
    pub stop_reason: String,
    pub citations: u64,
    pub valid_citations: u64,
    /// Whether the answer refuses; absent where it was not judged.
    pub did_refuse: Option<bool>,
    /// Mean of the coherence scores; absent when no line has one.
    pub coherence: Option<f64>,
}

/// Sums up records in the order of their trace, as [`crate::records::trace::TraceReader`] hands them out. Memory: a line per prompt.
///
/// ```
/// use behavior_eval::records::trace::{TraceRecord, summarize};
/// let mut record = TraceRecord::new("p-1", 0, 1, (&[0, 1], &[0.5, 0.5]), (&[0, 2], &[0.5, 0.5]));
/// record.stop_reason = Some("stop".into());
/// let summary = summarize([Ok(record)])?;
/// assert_eq!((summary.routing.agreement.value, summary.routing.overlap), (0.0, 0.5));
/// # Ok::<(), behavior_eval::Error>(())
/// ```
///
/// # Errors
/// Errors of reading a record; [`GateError::NoCases`] for a trace without records.
pub fn summarize(records: impl IntoIterator<Item = Result<TraceRecord>>) -> Result<TraceSummary> {
    let mut summing = Summing::default();
    for record in records {
        summing.push(&record?)?;
    }
    let Summing { all, layers, prompts, right_refusals: (right, judged), coherence, .. } = summing;
    let routing = all.figures().ok_or(GateError::NoCases)?;
    let layers = layers.iter().map(|(&layer, cases)| Some(LayerFigures { layer, figures: cases.figures()? }));
    let mut stop_reasons: BTreeMap<String, u64> = BTreeMap::new();
    for prompt in &prompts {
        *stop_reasons.entry(prompt.stop_reason.clone()).or_default() += 1;
    }
    let sum = |of: fn(&PromptSummary) -> u64| prompts.iter().map(of).sum();
    Ok(TraceSummary {
        records: routing.agreement.n,
        layers: layers.collect::<Option<_>>().ok_or(GateError::NoCases)?,
        routing,
        stop_reasons,
        valid_citations: Share::of(sum(|p| p.valid_citations), sum(|p| p.citations)),
        right_refusals: Share::of(right, judged),
        refusals: sum(|p| u64::from(p.did_refuse == Some(true))),
        prompts,
        coherence: coherence.mean_of_some(),
    })
}

#[derive(Default)]
struct Summing {
    all: Cases,
    layers: BTreeMap<u32, Cases>,
    prompts: Vec<PromptSummary>,
    /// Right ones, all that are judged.
    right_refusals: (u64, u64),
    coherence: Moments,
    /// Same sets, lines and coherence of the prompt that is read.
    open: (u64, u64, Moments),
}

impl Summing {
    fn push(&mut self, record: &TraceRecord) -> Result<()> {
        let routing = &record.routing;
        let teacher = (&routing.teacher_expert_ids[..], &routing.teacher_weights[..]);
        let student = (&routing.topk_expert_ids[..], &routing.topk_weights[..]);
        let same = self.all.push(teacher, student);
        self.layers.entry(record.layer_idx).or_default().push(teacher, student);
        self.open.0 += u64::from(same);
        self.open.1 += 1;
        if let Some(score) = record.coherence_score {
            self.coherence.push(score);
            self.open.2.push(score);
        }
        let Some(stop_reason) = &record.stop_reason else { return Ok(()) };
        let (count, n, coherence) = std::mem::take(&mut self.open);
        if let Some(correct) = record.refusal.as_ref().and_then(|refusal| refusal.correct) {
            self.right_refusals.0 += u64::from(correct);
            self.right_refusals.1 += 1;
        }
        self.prompts.push(PromptSummary {
            prompt_id: record.prompt_id.clone(),
            agreement: Share::of(count, n).ok_or(GateError::NoCases)?,
            stop_reason: stop_reason.clone(),
            citations: record.citations.len() as u64,
            valid_citations: record.citations.iter().filter(|citation| citation.valid).count() as u64,
            did_refuse: record.refusal.as_ref().map(|refusal| refusal.did_refuse),
            coherence: coherence.mean_of_some(),
        });
        Ok(())
    }
}
