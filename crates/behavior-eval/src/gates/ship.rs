//! The ship rule: six figures, each with a threshold, all on one run.
//!
//! ```text
//! SHIP = routing_agreement >= 0.85 and citation_precision >= 0.90 and citation_recall >= 0.70
//!    and refusal_f1 >= 0.85 and must_refuse >= 0.80 and must_answer >= 0.95
//! ```
//! **Invariant:** a figure over too few samples, or none at all, never passes. When nothing else failed it is an error;
//! when another gate failed, that failure is the verdict and the missing figure is shown beside it.

use serde::{Deserialize, Serialize};

use crate::stats::Figure;
use crate::{Error, Result};

/// One of the figures that decide whether a student ships.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BehavioralGate {
    /// (token, layer) pairs that choose the teacher's set of experts.
    RoutingAgreement,
    /// Citations of resolved and indeterminate prompts that hold.
    CitationPrecision,
    /// Relevant chunks of resolved prompts that are cited.
    CitationRecall,
    /// F1 of refusing, the positive class being the indeterminate prompts.
    RefusalF1,
    /// Indeterminate prompts that are refused.
    MustRefuse,
    /// Resolved prompts that are answered.
    MustAnswer,
}

impl BehavioralGate {
    /// All of them, in the order of the rule.
    pub const ALL: [Self; 6] = [
        Self::RoutingAgreement,
        Self::CitationPrecision,
        Self::CitationRecall,
        Self::RefusalF1,
        Self::MustRefuse,
        Self::MustAnswer,
    ];

    /// Its name in reports and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoutingAgreement => "routing_agreement",
            Self::CitationPrecision => "citation_precision",
            Self::CitationRecall => "citation_recall",
            Self::RefusalF1 => "refusal_f1",
            Self::MustRefuse => "must_refuse",
            Self::MustAnswer => "must_answer",
        }
    }

    /// The prompts its figure is about, for sentences.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::RoutingAgreement => "prompts",
            Self::CitationPrecision | Self::RefusalF1 => "resolved and indeterminate prompts",
            Self::CitationRecall | Self::MustAnswer => "resolved prompts",
            Self::MustRefuse => "indeterminate prompts",
        }
    }

    /// All names, for a message.
    pub(crate) fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// What repairs a student that fails it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::RoutingAgreement => "router repair on the misrouted positions",
            Self::CitationPrecision => "policy optimisation with the citation reward (precision)",
            Self::CitationRecall => "policy optimisation with the citation reward (recall)",
            Self::RefusalF1 | Self::MustRefuse | Self::MustAnswer => "policy optimisation with the refusal reward",
        }
    }
}

impl std::fmt::Display for BehavioralGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for BehavioralGate {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|gate| gate.name() == name)
            .ok_or_else(|| Error::UnknownGate { name: name.chars().take(60).collect() })
    }
}

/// What each gate demands; configuration, recorded in every report.
///
/// ```
/// use behavior_eval::gates::{BehavioralGate, GateThresholds};
/// let mut thresholds = GateThresholds::default();
/// thresholds.set(BehavioralGate::MustAnswer, 0.99)?;
/// assert_eq!(thresholds.of(BehavioralGate::MustAnswer), 0.99);
/// assert!(thresholds.set(BehavioralGate::MustAnswer, 1.5).is_err());
/// # Ok::<(), behavior_eval::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateThresholds {
    routing_agreement: f64,
    citation_precision: f64,
    citation_recall: f64,
    refusal_f1: f64,
    must_refuse: f64,
    must_answer: f64,
    /// Fewest prompts a figure may rest on.
    pub min_samples: u64,
}

impl Default for GateThresholds {
    /// The rule of the module's picture, on at least 20 samples each.
    fn default() -> Self {
        Self {
            routing_agreement: 0.85,
            citation_precision: 0.90,
            citation_recall: 0.70,
            refusal_f1: 0.85,
            must_refuse: 0.80,
            must_answer: 0.95,
            min_samples: 20,
        }
    }
}

impl GateThresholds {
    /// The threshold of a gate.
    #[must_use]
    pub fn of(&self, gate: BehavioralGate) -> f64 {
        match gate {
            BehavioralGate::RoutingAgreement => self.routing_agreement,
            BehavioralGate::CitationPrecision => self.citation_precision,
            BehavioralGate::CitationRecall => self.citation_recall,
            BehavioralGate::RefusalF1 => self.refusal_f1,
            BehavioralGate::MustRefuse => self.must_refuse,
            BehavioralGate::MustAnswer => self.must_answer,
        }
    }

    /// Changes the threshold of a gate.
    ///
    /// # Errors
    /// [`Error::ThresholdOutOfRange`] for what is no share.
    pub fn set(&mut self, gate: BehavioralGate, value: f64) -> Result<()> {
        if !(0.0..=1.0).contains(&value) {
            return Err(Error::ThresholdOutOfRange { gate, value });
        }
        *match gate {
            BehavioralGate::RoutingAgreement => &mut self.routing_agreement,
            BehavioralGate::CitationPrecision => &mut self.citation_precision,
            BehavioralGate::CitationRecall => &mut self.citation_recall,
            BehavioralGate::RefusalF1 => &mut self.refusal_f1,
            BehavioralGate::MustRefuse => &mut self.must_refuse,
            BehavioralGate::MustAnswer => &mut self.must_answer,
        } = value;
        Ok(())
    }
}

/// How a gate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The figure reaches the threshold.
    Pass,
    /// It does not.
    Fail,
    /// There are too few samples to say.
    TooFew,
}

/// One gate of one model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateResult {
    /// Which gate.
    pub gate: BehavioralGate,
    /// How it ended.
    pub outcome: Outcome,
    /// What it demands.
    pub threshold: f64,
    /// What was measured; nothing when there was nothing to measure on.
    pub figure: Option<Figure>,
}

impl GateResult {
    /// Judges a figure. With `strict` the lower end of its interval has to reach the threshold.
    #[must_use]
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
    #[must_use]
    pub fn demanded(&self) -> String {
        let (short, exact) = (format!("{:.2}", self.threshold), self.threshold.to_string());
        if exact.len() > short.len() { exact } else { short }
    }

    /// Whether the gate let the model through.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.outcome == Outcome::Pass
    }
}

/// Whether a student may be called ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Every gate passed.
    #[serde(rename = "SHIP")]
    Ship,
    /// At least one gate failed.
    #[serde(rename = "NO-SHIP")]
    NoShip,
}

impl Verdict {
    /// The verdict over the gates of one run.
    ///
    /// # Errors
    /// [`Error::TooFewSamples`] when a figure rests on too few samples and no gate failed; [`Error::GateMissing`] when a
    /// gate of the rule was not judged at all.
    pub fn of(results: &[GateResult], thresholds: &GateThresholds) -> Result<Self> {
        for gate in BehavioralGate::ALL {
            if !results.iter().any(|result| result.gate == gate) {
                return Err(Error::GateMissing { gate });
            }
        }
        if results.iter().any(|result| result.outcome == Outcome::Fail) {
            return Ok(Self::NoShip);
        }
        match results.iter().find(|result| result.outcome == Outcome::TooFew) {
            Some(result) => {
                let n = result.figure.map_or(0, |figure| figure.n);
                Err(Error::TooFewSamples { gate: result.gate, n, min: thresholds.min_samples.max(1) })
            }
            None => Ok(Self::Ship),
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ship => "SHIP",
            Self::NoShip => "NO-SHIP",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{BehavioralGate, Figure, GateResult, GateThresholds, Outcome, Verdict};
    use crate::Error;

    fn figure(value: f64, n: u64) -> Option<Figure> {
        Some(Figure { value, n, low95: value - 0.05, high95: (value + 0.05).min(1.0), ..Figure::share(1, 1) })
    }

    fn results(change: impl Fn(BehavioralGate) -> Option<Figure>, strict: bool) -> Vec<GateResult> {
        let thresholds = GateThresholds::default();
        BehavioralGate::ALL.map(|gate| GateResult::judge(gate, change(gate), &thresholds, strict)).to_vec()
    }

    #[test]
    fn a_student_exactly_on_every_threshold_ships_and_one_below_any_does_not() {
        let thresholds = GateThresholds::default();
        let at = |gate| figure(thresholds.of(gate), 20);
        assert_eq!(Verdict::of(&results(at, false), &thresholds).unwrap(), Verdict::Ship);
        for failing in BehavioralGate::ALL {
            let below = |gate| if gate == failing { figure(thresholds.of(gate) - 1e-9, 20) } else { at(gate) };
            let judged = results(below, false);
            assert_eq!(Verdict::of(&judged, &thresholds).unwrap(), Verdict::NoShip);
            let failed: Vec<_> = judged.iter().filter(|r| !r.passed()).map(|r| r.gate).collect();
            assert_eq!(failed, [failing]);
        }
    }

    #[test]
    fn a_demand_is_never_shown_rounded() {
        let shown = [0.9, 0.85, 0.996, 0.0, 1.0].map(|value| {
            let mut thresholds = GateThresholds::default();
            thresholds.set(BehavioralGate::MustAnswer, value).unwrap();
            GateResult::judge(BehavioralGate::MustAnswer, None, &thresholds, false).demanded()
        });
        assert_eq!(shown, ["0.90", "0.85", "0.996", "0.00", "1.00"]);
    }

    #[test]
    fn the_thresholds_are_those_of_the_rule() {
        let thresholds = GateThresholds::default();
        let values = BehavioralGate::ALL.map(|gate| thresholds.of(gate));
        assert_eq!(values, [0.85, 0.90, 0.70, 0.85, 0.80, 0.95]);
        for (i, gate) in BehavioralGate::ALL.into_iter().enumerate() {
            assert_eq!(gate.name().parse::<BehavioralGate>().unwrap(), gate);
            let mut changed = thresholds;
            changed.set(gate, 0.5).unwrap();
            for (j, other) in BehavioralGate::ALL.into_iter().enumerate() {
                assert_eq!(changed.of(other), if i == j { 0.5 } else { values[j] });
            }
        }
        assert!("routing".parse::<BehavioralGate>().is_err());
        for value in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(GateThresholds::default().set(BehavioralGate::MustAnswer, value).is_err());
        }
    }

    #[test]
    fn strict_asks_for_the_lower_end_of_the_interval() {
        let thresholds = GateThresholds::default();
        let share = Figure::share(18, 20);
        let gate = BehavioralGate::MustRefuse;
        assert_eq!(GateResult::judge(gate, Some(share), &thresholds, false).outcome, Outcome::Pass);
        assert_eq!(GateResult::judge(gate, Some(share), &thresholds, true).outcome, Outcome::Fail);
        let sure = Figure::share(1800, 2000);
        assert_eq!(GateResult::judge(gate, Some(sure), &thresholds, true).outcome, Outcome::Pass);
    }

    #[test]
    fn too_few_samples_are_an_error_and_never_a_pass() {
        let thresholds = GateThresholds::default();
        for few in [None, figure(1.0, 0), figure(1.0, 19)] {
            for gate in BehavioralGate::ALL {
                let judged = results(|g| if g == gate { few } else { figure(1.0, 500) }, false);
                let error = Verdict::of(&judged, &thresholds).unwrap_err();
                assert!(matches!(error, Error::TooFewSamples { gate: g, min: 20, .. } if g == gate), "{error}");
            }
        }
        // No threshold of samples lets an empty figure pass.
        let lax = GateThresholds { min_samples: 0, ..thresholds };
        let empty = GateResult::judge(BehavioralGate::RefusalF1, figure(1.0, 0), &lax, false);
        assert_eq!(empty.outcome, Outcome::TooFew);
        let wrong = GateResult::judge(BehavioralGate::RefusalF1, figure(f64::NAN, 100), &lax, false);
        assert_eq!(wrong.outcome, Outcome::Fail);
    }

    #[test]
    fn a_failure_outweighs_a_missing_figure_and_a_missing_gate_is_an_error() {
        let thresholds = GateThresholds::default();
        let judged = results(
            |gate| match gate {
                BehavioralGate::CitationPrecision => None,
                BehavioralGate::CitationRecall => figure(0.0, 400),
                _ => figure(1.0, 100),
            },
            false,
        );
        assert_eq!(Verdict::of(&judged, &thresholds).unwrap(), Verdict::NoShip);
        assert!(matches!(Verdict::of(&judged[1..], &thresholds), Err(Error::GateMissing { .. })));
        assert!(Verdict::of(&[], &thresholds).is_err());
    }
}
