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

use super::failures::Failure;
use serde::{Deserialize, Serialize};

use super::baseline::Comparison;
use crate::gates::{
    BehavioralGate, CitationFigures, GateResult, GateThresholds, LayerFigures, RefusalFigures, RoutingFigures, Verdict,
};
use crate::labels::{LabelCounts, LabelMove, LabelReport, LabelThresholds, SensitivityRow, Stability};
use crate::stats::Figure;

/// Version of the report's schema; `schema/gate-report.schema.json` of this crate describes it.
pub const SCHEMA: u32 = 1;

/// The result of one gate run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GateReport {
    /// Whether the student ships.
    pub verdict: Verdict,
    /// The result in sentences.
    pub summary: Vec<String>,
    /// [`SCHEMA`].
    pub schema: u32,
    /// What was asked.
    pub suite: SuiteFacts,
    /// How it was asked and judged.
    pub settings: Settings,
    /// The teacher under the same gates; its routing is the reference and has no gate.
    pub teacher: ModelReport,
    /// The student.
    pub student: ModelReport,
    /// What the student kept of the teacher's figures.
    pub retention: Vec<Retention>,
    /// The student's routing against the teacher's, each layer on the student's own hidden states.
    pub routing: RoutingSection,
    /// The same with each router fed the teacher's states; absent when these were not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_routing: Option<RoutingSection>,
    /// Cosine of teacher and student after the final norm; absent when the teacher's was not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coherence: Option<Coherence>,
    /// Distributions over the teacher's answers; absent when the teacher's were not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fidelity: Option<AnswerFidelity>,
    /// Automatic labels, and how far they can be trusted.
    pub labels: LabelSection,
    /// How the figures hold when a part of the corpus is gone; absent when not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perturbation: Option<Stability>,
    /// One entry per failed gate of the student.
    pub failures: Vec<Failure>,
    /// One line per prompt, in the order of the suite.
    pub prompts: Vec<PromptReport>,
    /// Comparison with an earlier report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Comparison>,
    /// Time, paths, threads.
    pub run: RunFacts,
}

impl GateReport {
    /// Whether the run may end well: the student ships and fell behind no baseline.
    #[must_use]
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

    /// The report as indented JSON with a line end.
    #[must_use]
    pub fn json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("a report holds strings and numbers only");
        text + "\n"
    }
}

/// The suite of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SuiteFacts {
    /// Name of its file.
    pub name: String,
    /// BLAKE3 of its prompts and chunks.
    pub identity: String,
    /// Prompts that were run.
    pub prompts: u64,
    /// Prompts whose sources agree.
    pub resolved: u64,
    /// Prompts whose sources disagree.
    pub contested: u64,
    /// Prompts without enough evidence.
    pub indeterminate: u64,
    /// Prompts that no signal labels; they are not gated.
    pub unlabelled: u64,
    /// Whether the labels are those of the suite or made from its evidence.
    pub labels: LabelSource,
}

/// Where labels come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelSource {
    /// The suite carries them.
    Suite,
    /// Made from the evidence of each prompt.
    Automatic,
    /// The suite's own where it has them, else made from evidence.
    Both,
}

/// What decides, next to the models and the suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Whether lower ends of intervals have to pass.
    pub strict: bool,
    /// Most tokens of an answer.
    pub max_new_tokens: usize,
    /// How the models compute, in the words of the command line.
    pub compute: String,
    /// What each gate demands.
    pub thresholds: GateThresholds,
    /// What makes a label out of evidence, where the suite has none.
    pub label_thresholds: LabelThresholds,
    /// What makes an answer a refusal: phrases, and tags between angle brackets.
    pub refusal_signals: Vec<String>,
}

/// One model under the gates.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelReport {
    /// A short name.
    pub name: String,
    /// BLAKE3 of what it computes.
    pub identity: String,
    /// Its gates, in the order of the ship rule.
    pub gates: Vec<GateResult>,
    /// Its citations.
    pub citations: CitationFigures,
    /// Its refusals.
    pub refusal: RefusalFigures,
    /// Tokens of its answers, on average.
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
    #[must_use]
    pub fn figure(&self, gate: BehavioralGate) -> Option<Figure> {
        self.gates.iter().find(|result| result.gate == gate)?.figure
    }
}

/// A figure of both models.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Retention {
    /// Which figure.
    pub gate: BehavioralGate,
    /// The teacher's.
    pub teacher: f64,
    /// The student's.
    pub student: f64,
    /// Student over teacher; absent when the teacher's is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<f64>,
}

/// Routing of the student against the teacher, over every token of the prompts and of the teacher's answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RoutingSection {
    /// Over all layers.
    #[serde(flatten)]
    pub figures: RoutingFigures,
    /// By layer, ascending.
    pub layers: Vec<LayerFigures>,
    /// The layer with the lowest agreement.
    pub worst_layer: u32,
}

/// How far the student's states point where the teacher's do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Coherence {
    /// Mean cosine.
    pub mean: f64,
    /// The lowest of all positions.
    pub lowest: f64,
    /// Positions.
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

/// Automatic labels: [`LabelReport`] without its prompts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelSection {
    /// Labels by the rules.
    pub counts: LabelCounts,
    /// Prompts whose label by the rules is the true one; absent when the suite has no labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Figure>,
    /// True labels against labels by the rules.
    pub confusion: Vec<LabelMove>,
    /// Every threshold a tenth down and a tenth up.
    pub sensitivity: Vec<SensitivityRow>,
}

impl From<&LabelReport> for LabelSection {
    fn from(report: &LabelReport) -> Self {
        Self {
            counts: report.counts,
            accuracy: report.accuracy,
            confusion: report.confusion.clone(),
            sensitivity: report.sensitivity.clone(),
        }
    }
}

/// One prompt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PromptReport {
    /// Its id.
    pub prompt_id: String,
    /// Its label.
    pub label: String,
    /// The gates it counts against; empty when nothing is wrong with it.
    pub failed: Vec<BehavioralGate>,
    /// Routing decisions, and those that agree.
    pub routing: [u64; 2],
    /// Citations, and those that hold.
    pub citations: [u64; 2],
    /// Relevant chunks, and those that are cited.
    pub relevant: [u64; 2],
    /// Whether the student refused.
    pub refused: bool,
    /// Whether the teacher refused.
    pub teacher_refused: bool,
    /// Why the student's answer ended.
    pub stop_reason: String,
    /// The student's answer.
    pub response: String,
}

/// What may differ between two runs of the same thing.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RunFacts {
    /// When the run ended, UTC.
    pub finished: String,
    /// Seconds of computing, all parts of an interrupted run together.
    pub seconds: f64,
    /// The same per prompt.
    pub seconds_per_prompt: f64,
    /// Threads.
    pub threads: usize,
    /// Whether the teacher's answers were there already.
    pub teacher_reused: bool,
    /// Prompts that an earlier, interrupted run had finished.
    pub resumed_prompts: u64,
    /// Files by role.
    pub files: std::collections::BTreeMap<String, String>,
}
