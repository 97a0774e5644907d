//! The outcome of each gate, and the verdict over all of them.
//!
//! **Invariant:** a figure over too few samples, or none at all, never passes. When nothing else failed it is an error;
//! when another gate failed, that failure is the verdict and the missing figure is shown beside it.

use serde::{Deserialize, Serialize};

use super::error::GateError;
use super::measured::Measured;
use super::table::{BehavioralGate, Reads};
use super::thresholds::GateThresholds;
use crate::stats::Figure;

/// How a gate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "variants without a sentence speak for themselves")]
pub enum Outcome {
    Pass,
    Fail,
    TooFew,
}

/// One gate of one model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct GateResult {
    pub gate: BehavioralGate,
    pub outcome: Outcome,
    pub threshold: f64,
    /// The measured figure; absent when there was nothing to measure on.
    pub figure: Option<Figure>,
}

impl GateResult {
    /// Judges a figure. With `strict` the lower end of its interval has to reach the threshold.
    pub fn judge(gate: BehavioralGate, figure: Option<Figure>, thresholds: &GateThresholds, strict: bool) -> Self {
        let threshold = thresholds.of(gate);
        let outcome = match figure {
            Some(figure) if figure.n >= thresholds.min_samples.max(1) => {
                let deciding = if strict { figure.low95 } else { figure.value };
                // Not a number does not pass.
                if deciding >= threshold { Outcome::Pass } else { Outcome::Fail }
            }
            _ => Outcome::TooFew,
        };
        Self { gate, outcome, threshold, figure }
    }

    /// The threshold in figures, exactly, with at least two decimal places: `0.90`, `0.996`.
    pub fn demanded(&self) -> String {
        let (short, exact) = (format!("{:.2}", self.threshold), self.threshold.to_string());
        if exact.len() > short.len() { exact } else { short }
    }

    /// Whether the gate let the model through.
    pub fn passed(&self) -> bool {
        self.outcome == Outcome::Pass
    }
}

impl Measured {
    /// The gates, in the order of the table. Without routing, as for the teacher, whose routing is the reference, those
    /// of the answers only.
    pub fn gates(&self, thresholds: &GateThresholds, strict: bool) -> Vec<GateResult> {
        let judged = BehavioralGate::ALL.into_iter();
        let judged = judged.filter(|gate| gate.row().reads == Reads::Answers || self.routing.is_some());
        judged.map(|gate| GateResult::judge(gate, (gate.row().figure)(self), thresholds, strict)).collect()
    }
}

/// Whether a student may be called ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "variants without a sentence speak for themselves")]
pub enum Verdict {
    #[serde(rename = "SHIP")]
    Ship,
    #[serde(rename = "NO-SHIP")]
    NoShip,
}

impl Verdict {
    /// The verdict over the gates of one run.
    ///
    /// # Errors
    /// [`GateError::TooFewSamples`] when a figure rests on too few samples and no gate failed; [`GateError::Missing`] when a
    /// gate of the rule was not judged at all.
    pub fn of(results: &[GateResult], thresholds: &GateThresholds) -> Result<Self, GateError> {
        for gate in BehavioralGate::ALL {
            if !results.iter().any(|result| result.gate == gate) {
                return Err(GateError::Missing { gate: gate.name() });
            }
        }
        if results.iter().any(|result| result.outcome == Outcome::Fail) {
            return Ok(Self::NoShip);
        }
        match results.iter().find(|result| result.outcome == Outcome::TooFew) {
            Some(result) => {
                let n = result.figure.map_or(0, |figure| figure.n);
                Err(GateError::TooFewSamples {
                    gate: result.gate.name(),
                    unit: result.gate.row().unit,
                    n,
                    min: thresholds.min_samples.max(1),
                })
            }
            None => Ok(Self::Ship),
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}
