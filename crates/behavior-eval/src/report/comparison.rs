//! A report set beside an earlier one.

use serde::Serialize;

use crate::gates::BehavioralGate;
use crate::stats::Figure;

/// A report set beside its baseline.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Comparison {
    /// Identity of the student of the baseline.
    pub student: String,
    /// Figures that got worse beyond chance, one sentence each.
    pub regressions: Vec<String>,
    pub notes: Vec<String>,
    pub figures: Vec<Change>,
    /// Prompts that had nothing wrong then and have now.
    pub newly_failing: Vec<String>,
    /// The other way round.
    pub newly_passing: Vec<String>,
}

/// A figure then and now.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Change {
    pub gate: BehavioralGate,
    pub baseline: Option<Figure>,
    pub now: Option<Figure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<f64>,
    /// Whether it got worse beyond chance.
    pub regressed: bool,
}
