//! The table of gates: one row per gate.
//!
//! ```text
//! SHIP = routing_agreement >= 0.85 and citation_precision >= 0.90 and citation_recall >= 0.70
//!    and refusal_f1 >= 0.85 and must_refuse >= 0.80 and must_answer >= 0.95
//! ```
//! A new gate is a new row. Thresholds, verdict, reports, metadata and the command line read the table; only a figure that
//! nothing measures yet needs more: a field of [`Measured`].

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::GateError;
use super::measured::Measured;
use super::record::{CitationVerdict, PromptRecord};
use crate::stats::Figure;
use crate::suite::Label;

/// One of the figures that decide whether a student ships: a row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BehavioralGate(usize);

/// A row of the table: all that differs between gates.
pub(crate) struct GateRow {
    name: &'static str,
    /// The least figure that passes, unless configured otherwise.
    pub(super) threshold: f64,
    /// The prompts its figure is about, for sentences.
    pub(crate) unit: &'static str,
    /// The fault of prompts that cost the gate something, worded to follow "12 of 200 prompts".
    pub(crate) trouble: &'static str,
    remedy: &'static str,
    pub(crate) reads: Reads,
    /// The figure; `None` where there is nothing to take a figure of.
    pub(super) figure: fn(&Measured) -> Option<Figure>,
    /// How much a prompt costs the gate, larger is worse, and why; `None` when it costs nothing.
    pub(crate) cost: fn(&PromptRecord<'_>) -> Option<(f64, String)>,
    counts: CountsAgainst,
}

/// The measurements that a gate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// Routing of given tokens. The teacher's is the reference, so the teacher has no such gate, and repairs are
    /// positions.
    Routing,
    /// Answers. Repairs are prompts.
    Answers,
}

/// Which prompts count against a gate.
enum CountsAgainst {
    /// Prompts that cost it something.
    Costly,
    /// Prompts whose own routing agreement is below the threshold.
    BelowThreshold,
    /// The prompts that count against the gates of these names.
    Of(&'static [&'static str]),
}

const CITATION_REMEDY: &str = "refinement towards the teacher on conversations that cite";
const REFUSAL_REMEDY: &str = "refinement towards the teacher on conversations that answer and refuse";

/// Every gate, in the order of reports.
const TABLE: &[GateRow] = &[
    GateRow {
        name: "routing_agreement",
        threshold: 0.85,
        unit: "prompts",
        trouble: "have a decision that differs",
        remedy: "router repair: routers are fitted to the choices of the teacher's",
        reads: Reads::Routing,
        figure: |measured| measured.routing,
        cost: misrouted,
        counts: CountsAgainst::BelowThreshold,
    },
    GateRow {
        name: "citation_precision",
        threshold: 0.90,
        unit: "resolved and indeterminate prompts",
        trouble: "have a citation that does not hold",
        remedy: CITATION_REMEDY,
        reads: Reads::Answers,
        figure: |measured| of_something(measured.citations.precision),
        cost: invalid,
        counts: CountsAgainst::Costly,
    },
    GateRow {
        name: "citation_recall",
        threshold: 0.70,
        unit: "resolved prompts",
        trouble: "leave a relevant chunk uncited",
        remedy: CITATION_REMEDY,
        reads: Reads::Answers,
        figure: |measured| of_something(measured.citations.recall),
        cost: uncited,
        counts: CountsAgainst::Costly,
    },
    GateRow {
        name: "refusal_f1",
        threshold: 0.85,
        unit: "resolved and indeterminate prompts",
        trouble: "are refused or answered wrongly",
        remedy: REFUSAL_REMEDY,
        reads: Reads::Answers,
        // 0 by definition where nothing is refused.
        figure: |measured| Some(measured.refusals.f1),
        cost: |record| wrong(record, None),
        counts: CountsAgainst::Of(&["must_refuse", "must_answer"]),
    },
    GateRow {
        name: "must_refuse",
        threshold: 0.80,
        unit: "indeterminate prompts",
        trouble: "are answered where a refusal is due",
        remedy: REFUSAL_REMEDY,
        reads: Reads::Answers,
        figure: |measured| of_something(measured.refusals.must_refuse),
        cost: |record| wrong(record, Some(true)),
        counts: CountsAgainst::Costly,
    },
    GateRow {
        name: "must_answer",
        threshold: 0.95,
        unit: "resolved prompts",
        trouble: "are not answered where an answer is due",
        remedy: REFUSAL_REMEDY,
        reads: Reads::Answers,
        figure: |measured| of_something(measured.refusals.must_answer),
        cost: |record| wrong(record, Some(false)),
        counts: CountsAgainst::Costly,
    },
];

/// A figure that counts at least one case: an answer without citations has no precision.
fn of_something(figure: Figure) -> Option<Figure> {
    (figure.denominator != Some(0)).then_some(figure)
}

fn misrouted(record: &PromptRecord<'_>) -> Option<(f64, String)> {
    let agreement = record.routing.as_ref()?.agreement;
    let differ = agreement.n - agreement.count;
    (differ > 0).then(|| (1.0 - agreement.value, format!("{differ} of {} decisions differ", agreement.n)))
}

fn invalid(record: &PromptRecord<'_>) -> Option<(f64, String)> {
    let reasons: Vec<String> = record
        .citations
        .iter()
        .filter(|c| !c.valid)
        .map(|c| format!("[{}] {}", c.chunk_id, reason(c.verdict)))
        .collect();
    let counts = record.is_gated() && !reasons.is_empty();
    counts.then(|| (reasons.len() as f64, reasons.join(", ")))
}

fn reason(verdict: CitationVerdict) -> &'static str {
    match verdict {
        CitationVerdict::Valid => "holds",
        CitationVerdict::NoSuchChunk => "is no chunk of the prompt",
        CitationVerdict::NotSupported => "does not say so",
        CitationVerdict::NothingToCite => "cited where the evidence allows no answer",
    }
}

fn uncited(record: &PromptRecord<'_>) -> Option<(f64, String)> {
    let (cited, all) = (record.n_relevant_cited(), record.relevant.len() as u64);
    let counts = record.label == Some(Label::Resolved) && cited < all;
    counts.then(|| ((all - cited) as f64, format!("{cited} of {all} relevant chunks cited")))
}

/// An answer where a refusal is due or the other way round; only prompts where `due` is due.
fn wrong(record: &PromptRecord<'_>, due: Option<bool>) -> Option<(f64, String)> {
    let refusal_due = record.should_refuse()?;
    let why = match (refusal_due, record.is_wordless()) {
        (_, true) => "the answer has no words",
        (true, false) => "answered where a refusal is due",
        (false, false) => "refused where an answer is due",
    };
    let counts = due.is_none_or(|due| due == refusal_due) && record.refusal_is_right() == Some(false);
    counts.then(|| (1.0, why.to_owned()))
}

impl BehavioralGate {
    /// All gates, in the order of reports.
    pub const ALL: [Self; TABLE.len()] = {
        let mut all = [Self(0); TABLE.len()];
        let mut place = 1;
        while place < all.len() {
            all[place] = Self(place);
            place += 1;
        }
        all
    };

    /// The gate's row of the table.
    pub(crate) fn row(self) -> &'static GateRow {
        &TABLE[self.0]
    }

    /// Its place in the table.
    pub(super) fn place(self) -> usize {
        self.0
    }

    /// Its name in reports and on the command line.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The repair for a student that fails the gate.
    pub fn remedy(self) -> &'static str {
        self.row().remedy
    }

    /// Whether it is the routers that are repaired for it; else answers are, by training the student.
    pub fn is_about_routers(self) -> bool {
        self.row().reads == Reads::Routing
    }

    /// Whether the prompt counts against it, as reports list it.
    pub(crate) fn is_failed_by(self, record: &PromptRecord<'_>, threshold: f64) -> bool {
        match self.row().counts {
            CountsAgainst::Costly => (self.row().cost)(record).is_some(),
            CountsAgainst::BelowThreshold => record.routing.as_ref().is_some_and(|r| r.agreement.value < threshold),
            CountsAgainst::Of(_) => false,
        }
    }

    /// Whether a prompt that these gates are failed by is one to repair for this gate.
    pub(crate) fn is_repaired_by(self, failed: &[Self]) -> bool {
        match self.row().counts {
            CountsAgainst::Of(names) => failed.iter().any(|gate| names.contains(&gate.name())),
            CountsAgainst::Costly | CountsAgainst::BelowThreshold => failed.contains(&self),
        }
    }
}

impl std::fmt::Display for BehavioralGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for BehavioralGate {
    type Err = GateError;

    fn from_str(name: &str) -> Result<Self, GateError> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let unknown = || GateError::Unknown { name: name.chars().take(60).collect(), names: names() };
        Self::ALL.into_iter().find(|gate| gate.name() == name).ok_or_else(unknown)
    }
}

impl Serialize for BehavioralGate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for BehavioralGate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::{BehavioralGate, CountsAgainst};

    #[test]
    fn every_row_is_found_by_its_name_and_refers_to_rows_that_exist() {
        for (place, gate) in BehavioralGate::ALL.into_iter().enumerate() {
            assert_eq!((gate.place(), gate.name().parse::<BehavioralGate>().unwrap()), (place, gate));
            assert_eq!(serde_json::to_string(&gate).unwrap(), format!("\"{gate}\""));
            if let CountsAgainst::Of(names) = gate.row().counts {
                assert!(names.iter().all(|name| name.parse::<BehavioralGate>().is_ok()), "{gate}");
            }
        }
        assert!("routing".parse::<BehavioralGate>().is_err());
        assert!(serde_json::from_str::<BehavioralGate>("\"vibes\"").unwrap_err().to_string().contains("vibes"));
    }
}
