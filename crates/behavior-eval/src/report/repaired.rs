//! A student that was repaired because it failed, set beside itself before the repair.

use serde::Serialize;

use crate::gates::BehavioralGate;
use crate::stats::Figure;

/// The steps of a repair, and the gates before and behind it. The report that holds it is about the repaired student.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Repaired {
    /// Name and identity of the student that failed.
    pub name: String,
    pub identity: String,
    /// The steps in words, in their order.
    pub steps: Vec<String>,
    pub gates: Vec<RepairedGate>,
}

/// A gate before and behind a repair.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct RepairedGate {
    pub gate: BehavioralGate,
    pub before: Option<Figure>,
    pub after: Option<Figure>,
    pub passed_before: bool,
    pub passes_after: bool,
}
