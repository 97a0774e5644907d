//! The report of a gate run: what was decided, on which figures, where it went wrong and what would repair it.
//!
//! ```text
//! GateReport
//!   verdict, summary       SHIP or NO-SHIP first, then sentences; a teacher that misses a gate is the first of them
//!   suite, settings        what was asked, and how
//!   teacher, student       the same gates over both; retention sets them side by side
//!   routing ... labels     every figure with n and interval
//!   failures               per failed gate: where, the worst prompts with their answers, the remedy
//!   prompts                one line per prompt
//!   run                    time, paths, threads: the only part that may differ between two equal runs
//! ```
//! **Invariant:** everything but [`GateReport::run`] is a function of the models, the suite and the settings; two runs give
//! the same bytes.
//!
//! **Invariant:** a metric that was not measured is absent.

use serde::{Deserialize, Serialize};

use super::comparison::Comparison;
use super::failures::Failure;
use super::repaired::{Repaired, RepairedGate};
use crate::gates::{
    BehavioralGate, CitationFigures, GateResult, GateThresholds, PromptRecord, RefusalFigures, RoutingReport, Verdict,
};
use crate::labels::{LabelCounts, LabelFigures, LabelThresholds, Stability};
use crate::stats::Figure;

/// Version of the report's schema; `schema/gate-report.schema.json` of this crate describes it.
pub const SCHEMA: u32 = 1;

/// The result of one gate run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct GateReport {
    pub verdict: Verdict,
    pub summary: Vec<String>,
    pub schema: u32,
    pub suite: SuiteFacts,
    pub settings: Settings,
    /// The teacher under the same gates; its routing is the reference and has no gate.
    pub teacher: ModelReport,
    pub student: ModelReport,
    /// The student's figures as parts of the teacher's.
    pub retention: Vec<Retention>,
    /// The student's routing against the teacher's, each layer on the student's own hidden states.
    pub routing: RoutingReport,
    /// The same with each router fed the teacher's states; absent when these were not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_routing: Option<RoutingReport>,
    /// Cosine of teacher and student after the final norm; absent when the teacher's was not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coherence: Option<Coherence>,
    /// Distributions over the teacher's answers; absent when the teacher's were not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fidelity: Option<AnswerFidelity>,
    /// Automatic labels, and how far they can be trusted.
    pub labels: LabelFigures,
    /// How the figures hold when a part of the corpus is gone; absent when not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perturbation: Option<Stability>,
    /// One entry per failed gate of the student.
    pub failures: Vec<Failure>,
    /// One line per prompt, in the order of the suite.
    pub prompts: Vec<PromptReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Comparison>,
    /// The student before it was repaired; absent where it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repaired: Option<Repaired>,
    pub run: RunFacts,
}

impl GateReport {
    /// Whether the run may end well: the student ships and fell behind no baseline.
    pub fn passed(&self) -> bool {
        self.verdict == Verdict::Ship && self.baseline.as_ref().is_none_or(|baseline| baseline.regressions.is_empty())
    }

    /// Sets the comparison with an earlier report; a regression is said in the summary, for it fails the run.
    pub fn set_baseline(&mut self, comparison: Comparison) {
        match comparison.regressions.len() {
            0 => {}
            n => self
                .summary
                .push(format!("The student fell behind the baseline in {n} of its figures: this run fails.")),
        }
        self.baseline = Some(comparison);
    }

    /// Notes that this report is about the student of `before` behind the repair `steps`, and says so in the summary.
    pub fn set_repaired(&mut self, before: &GateReport, steps: Vec<String>) {
        let gates = self.student.gates.iter().map(|now| {
            let then = before.student.gates.iter().find(|then| then.gate == now.gate);
            RepairedGate {
                gate: now.gate,
                before: then.and_then(|then| then.figure),
                after: now.figure,
                passed_before: then.is_some_and(|then| then.passed()),
                passes_after: now.passed(),
            }
        });
        let gates: Vec<RepairedGate> = gates.collect();
        let failed = gates.iter().filter(|gate| !gate.passed_before).count();
        let mended = gates.iter().filter(|gate| !gate.passed_before && gate.passes_after).count();
        let lost = gates.iter().filter(|gate| gate.passed_before && !gate.passes_after).count();
        self.summary.push(format!(
            "{} missed {failed} gates and was repaired ({}): {mended} of them pass now, and {lost} that passed do not.",
            before.student.name,
            steps.join(", then ")
        ));
        let (name, identity) = (before.student.name.clone(), before.student.identity.clone());
        self.repaired = Some(Repaired { name, identity, steps, gates });
    }

    /// The report as indented JSON with a line end.
    pub fn json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("a report holds strings and numbers only");
        text + "\n"
    }
}

/// The suite of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct SuiteFacts {
    pub name: String,
    /// BLAKE3 of its prompts and chunks.
    pub identity: String,
    pub prompts: u64,
    /// By the label that gates.
    #[serde(flatten)]
    pub counts: LabelCounts,
    /// Whether the labels are those of the suite or made from its evidence.
    pub labels: LabelSource,
}

/// Where labels come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "variants without a sentence speak for themselves")]
pub enum LabelSource {
    Suite,
    Automatic,
    /// The suite's own where it has them, else made from evidence.
    Both,
}

/// Everything that decides a run, next to the models and the suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Settings {
    /// Whether lower ends of intervals have to pass.
    pub strict: bool,
    pub max_new_tokens: usize,
    /// How the models compute, in the words of the command line.
    pub compute: String,
    pub thresholds: GateThresholds,
    /// The rules that make labels from evidence, where the suite has none.
    pub label_thresholds: LabelThresholds,
    /// The signals of a refusal: phrases, and tags between angle brackets.
    pub refusal_signals: Vec<String>,
}

/// One model under the gates.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct ModelReport {
    pub name: String,
    /// BLAKE3 of what it computes.
    pub identity: String,
    /// Its gates, in the order of the ship rule.
    pub gates: Vec<GateResult>,
    pub citations: CitationFigures,
    pub refusal: RefusalFigures,
    pub answer_tokens: f64,
    /// Answers that were cut off by their limit.
    pub cut_off: u64,
}

impl ModelReport {
    /// The gates it does not pass.
    pub fn misses(&self) -> impl Iterator<Item = &GateResult> {
        self.gates.iter().filter(|result| !result.passed())
    }

    /// The figure of a gate.
    pub fn figure(&self, gate: BehavioralGate) -> Option<Figure> {
        self.gates.iter().find(|result| result.gate == gate)?.figure
    }
}

/// A figure of both models.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Retention {
    pub gate: BehavioralGate,
    pub teacher: f64,
    pub student: f64,
    /// Student over teacher; absent when the teacher's is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<f64>,
}

/// How far the student's states point where the teacher's do.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Coherence {
    pub mean: f64,
    /// The lowest of all positions.
    pub lowest: f64,
    pub n: u64,
}

/// Distributions of teacher and student over the teacher's answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnswerFidelity {
    /// Mean KL(teacher || student) in nats, with all tokens that were not stored as one outcome: a lower bound.
    pub kl_mean: f64,
    /// Probability of the tokens that were not stored, on average.
    pub tail_mass: f64,
    /// Positions where both find the same token most likely.
    pub same_top1: Figure,
    /// Mean divergence at each position of an answer, the first token's first.
    pub kl_by_position: Vec<f64>,
}

/// One prompt of a report.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct PromptReport {
    pub prompt_id: String,
    pub label: String,
    /// The gates it counts against; empty when nothing is wrong with it.
    pub failed: Vec<BehavioralGate>,
    /// Routing decisions, and those that agree.
    pub routing: [u64; 2],
    /// Citations, and those that hold.
    pub citations: [u64; 2],
    /// Relevant chunks, and those that are cited.
    pub relevant: [u64; 2],
    pub refused: bool,
    pub teacher_refused: bool,
    pub stop_reason: String,
    pub response: String,
}

impl PromptReport {
    /// The line of a prompt, from its records of both models.
    pub(crate) fn of(student: &PromptRecord<'_>, teacher: &PromptRecord<'_>, thresholds: &GateThresholds) -> Self {
        let fails = |gate: &BehavioralGate| gate.is_failed_by(student, thresholds.of(*gate));
        Self {
            prompt_id: student.prompt.id.clone(),
            label: student.label_name().to_owned(),
            failed: BehavioralGate::ALL.into_iter().filter(fails).collect(),
            routing: student.routing.as_ref().map_or([0, 0], |figures| [figures.agreement.n, figures.agreement.count]),
            citations: [student.citations.len() as u64, student.n_valid()],
            relevant: [student.relevant.len() as u64, student.n_relevant_cited()],
            refused: student.did_refuse(),
            teacher_refused: teacher.did_refuse(),
            stop_reason: student.answer.stop_reason.to_string(),
            response: student.answer.text.clone(),
        }
    }
}

/// Facts that may differ between two equal runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct RunFacts {
    pub finished: String,
    /// Seconds of computing, all parts of an interrupted run together.
    pub seconds: f64,
    pub seconds_per_prompt: f64,
    pub threads: usize,
    pub teacher_reused: bool,
    /// Prompts that an earlier, interrupted run had finished.
    pub resumed_prompts: u64,
    pub files: std::collections::BTreeMap<String, String>,
}
