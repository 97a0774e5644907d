//! The figures of one trace.
//!
//! **Invariant:** they come from the lines alone and equal the routing gate's, margins apart, which traces do not hold.

use std::collections::BTreeMap;

use serde::Serialize;

use super::record::TraceRecord;
use crate::gates::{Cases, RoutingFigures};
use crate::stats::{Moments, Share};
use crate::{Error, Result};

/// What a trace says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TraceSummary {
    /// Lines.
    pub records: u64,
    /// Routing over all lines.
    pub routing: RoutingFigures,
    /// By layer, ascending.
    pub layers: Vec<LayerSummary>,
    /// By prompt, in the order of the trace.
    pub prompts: Vec<PromptSummary>,
    /// How often answers ended for each reason.
    pub stop_reasons: BTreeMap<String, u64>,
    /// Citations, and those that are valid; absent when there is none.
    pub valid_citations: Option<Share>,
    /// Answers whose prompt is gated for refusal, and those that are right; absent when there is none.
    pub right_refusals: Option<Share>,
    /// Answers that refuse.
    pub refusals: u64,
    /// Mean of the coherence scores; absent when no line has one.
    pub coherence: Option<f64>,
}

/// Routing in one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerSummary {
    /// Index of the layer in the model.
    pub layer: u32,
    /// Its figures.
    #[serde(flatten)]
    pub routing: RoutingFigures,
}

/// One prompt of a trace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PromptSummary {
    /// Which prompt.
    pub prompt_id: String,
    /// Tokens and layers with the same set of experts.
    pub agreement: Share,
    /// Why the answer ended.
    pub stop_reason: String,
    /// Citations of the answer.
    pub citations: u64,
    /// Those that are valid.
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
/// What a record's reading failed with; [`Error::NoCases`] for a trace without records.
pub fn summarize(records: impl IntoIterator<Item = Result<TraceRecord>>) -> Result<TraceSummary> {
    let mut summing = Summing::default();
    for record in records {
        summing.push(&record?)?;
    }
    let share = |(count, n)| Share::of(count, n);
    let layers = summing
        .layers
        .iter()
        .map(|(&layer, cases)| Ok(LayerSummary { layer, routing: cases.figures().ok_or(Error::NoCases)? }));
    Ok(TraceSummary {
        records: summing.records,
        routing: summing.all.figures().ok_or(Error::NoCases)?,
        layers: layers.collect::<Result<_>>()?,
        prompts: summing.prompts,
        stop_reasons: summing.stop_reasons,
        valid_citations: share(summing.citations),
        right_refusals: share(summing.right_refusals),
        refusals: summing.refusals,
        coherence: summing.coherence.mean_of_some(),
    })
}

#[derive(Default)]
struct Summing {
    records: u64,
    all: Cases,
    layers: BTreeMap<u32, Cases>,
    prompts: Vec<PromptSummary>,
    stop_reasons: BTreeMap<String, u64>,
    /// Valid, all.
    citations: (u64, u64),
    right_refusals: (u64, u64),
    refusals: u64,
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
        self.records += 1;
        self.open.0 += u64::from(same);
        self.open.1 += 1;
        if let Some(score) = record.coherence_score {
            self.coherence.push(score);
            self.open.2.push(score);
        }
        let Some(stop_reason) = &record.stop_reason else { return Ok(()) };
        let (count, n, coherence) = std::mem::take(&mut self.open);
        let valid = record.citations.iter().filter(|citation| citation.valid).count() as u64;
        self.citations.0 += valid;
        self.citations.1 += record.citations.len() as u64;
        if let Some(refusal) = &record.refusal {
            self.refusals += u64::from(refusal.did_refuse);
            if let Some(correct) = refusal.correct {
                self.right_refusals.0 += u64::from(correct);
                self.right_refusals.1 += 1;
            }
        }
        *self.stop_reasons.entry(stop_reason.clone()).or_default() += 1;
        self.prompts.push(PromptSummary {
            prompt_id: record.prompt_id.clone(),
            agreement: Share::of(count, n).ok_or(Error::NoCases)?,
            stop_reason: stop_reason.clone(),
            citations: record.citations.len() as u64,
            valid_citations: valid,
            did_refuse: record.refusal.as_ref().map(|refusal| refusal.did_refuse),
            coherence: coherence.mean_of_some(),
        });
        Ok(())
    }
}
