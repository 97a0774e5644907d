//! Labels from the evidence alone, and how far they can be trusted.
//!
//! The first rule that matches gives the label:
//!
//! | label | rule | default |
//! |---|---|---|
//! | contested | disagreement above | 0.4 |
//! | resolved | redundancy above | 3 |
//! | indeterminate | fragility above | 0.7 |
//!
//! A prompt that no rule matches has no label and is not gated. Where the suite knows the true label, that one gates, and
//! the report says how often the rules agree with it.

use crate::labels::LabelError;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::evidence::{Cluster, Evidence};
use crate::stats::Figure;
use crate::suite::{Label, Prompt};

/// The number that each signal must exceed to give its label.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct LabelThresholds {
    pub disagreement: f64,
    pub redundancy: f64,
    pub fragility: f64,
}

impl Default for LabelThresholds {
    fn default() -> Self {
        Self { disagreement: 0.4, redundancy: 3.0, fragility: 0.7 }
    }
}

impl std::fmt::Display for LabelThresholds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { disagreement, redundancy, fragility } = self;
        write!(f, "disagreement > {disagreement}, redundancy > {redundancy}, fragility > {fragility}")
    }
}

/// How far thresholds are moved for the sensitivity table.
const STEP: f64 = 0.1;

/// The signals of one prompt and the label they give.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct PromptLabel {
    pub prompt_id: String,
    /// The suite's own label.
    pub true_label: Option<Label>,
    /// The label by the rules.
    pub label: Option<Label>,
    /// Distinct sources of the largest group of agreeing chunks.
    pub redundancy: u64,
    /// How evenly sources are split between answers.
    pub disagreement: f64,
    /// How much of the answer hangs on one source.
    pub fragility: f64,
    /// The answers, the one with the most sources first.
    pub clusters: Vec<Cluster>,
    /// Ids of the chunks an answer should cite by this evidence and the label that gates.
    pub relevant: Vec<String>,
}

impl PromptLabel {
    /// The label that gates: the suite's own, else the one by the rules.
    pub fn gating(&self) -> Option<Label> {
        self.true_label.or(self.label)
    }
}

/// How many prompts have which label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct LabelCounts {
    pub resolved: u64,
    pub contested: u64,
    pub indeterminate: u64,
    /// Prompts that no signal labels; they are not gated.
    pub unlabelled: u64,
}

impl LabelCounts {
    pub(crate) fn of(labels: impl Iterator<Item = Option<Label>>) -> Self {
        let mut counts = Self::default();
        for label in labels {
            *match label {
                Some(Label::Resolved) => &mut counts.resolved,
                Some(Label::Contested) => &mut counts.contested,
                Some(Label::Indeterminate) => &mut counts.indeterminate,
                None => &mut counts.unlabelled,
            } += 1;
        }
        counts
    }
}

/// How many prompts changed from one label to another; `None` is unlabelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct LabelMove {
    /// The true label, or the label before a threshold moved.
    pub from: Option<Label>,
    /// The label by the rules, or after it moved.
    pub to: Option<Label>,
    pub prompts: u64,
}

/// The labels that change when one threshold is moved.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct SensitivityRow {
    pub threshold: &'static str,
    pub value: f64,
    /// Labels that differ from those of the report.
    pub flips: u64,
    pub moves: Vec<LabelMove>,
}

/// How far the labels by the rules can be trusted.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct LabelFigures {
    pub counts: LabelCounts,
    /// Prompts whose label by the rules is the true one, of those that have a true one; absent when none has. A prompt
    /// without a label by the rules counts as missed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Figure>,
    /// True labels against labels by the rules; cells of no prompts are left out.
    pub confusion: Vec<LabelMove>,
    /// Every threshold a tenth down and a tenth up.
    pub sensitivity: Vec<SensitivityRow>,
}

/// All labels of a suite.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct LabelReport {
    pub figures: LabelFigures,
    /// Every prompt, in the order of the suite.
    pub prompts: Vec<PromptLabel>,
}

impl LabelThresholds {
    /// Changes the threshold of the signal of this name.
    ///
    /// ```
    /// use behavior_eval::labels::LabelThresholds;
    /// let mut thresholds = LabelThresholds::default();
    /// thresholds.set("redundancy", 2.0)?;
    /// assert_eq!(thresholds.redundancy, 2.0);
    /// assert!(thresholds.set("fragility", 1.5).is_err() && thresholds.set("vibes", 0.5).is_err());
    /// # Ok::<(), behavior_eval::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`LabelError::Threshold`] for another name, and for a number that the signal never has.
    pub fn set(&mut self, name: &str, value: f64) -> Result<(), LabelError> {
        let most = if name == "redundancy" { f64::MAX } else { 1.0 };
        match self.field(name) {
            Some(threshold) if (0.0..=most).contains(&value) => *threshold = value,
            _ => return Err(LabelError::Threshold { name: name.chars().take(60).collect(), value }),
        }
        Ok(())
    }

    fn field(&mut self, name: &str) -> Option<&mut f64> {
        match name {
            "disagreement" => Some(&mut self.disagreement),
            "redundancy" => Some(&mut self.redundancy),
            "fragility" => Some(&mut self.fragility),
            _ => None,
        }
    }

    /// The label of evidence with these signals.
    pub fn label(&self, redundancy: u64, disagreement: f64, fragility: f64) -> Option<Label> {
        if disagreement > self.disagreement {
            Some(Label::Contested)
        } else if redundancy as f64 > self.redundancy {
            Some(Label::Resolved)
        } else if fragility > self.fragility {
            Some(Label::Indeterminate)
        } else {
            None
        }
    }

    fn of(&self, prompt: &PromptLabel) -> Option<Label> {
        self.label(prompt.redundancy, prompt.disagreement, prompt.fragility)
    }
}

/// Labels one prompt from its evidence.
pub fn label(prompt: &Prompt, thresholds: &LabelThresholds) -> PromptLabel {
    let evidence = Evidence::of(prompt);
    let (redundancy, disagreement, fragility) = (evidence.redundancy(), evidence.disagreement(), evidence.fragility());
    let label = thresholds.label(redundancy, disagreement, fragility);
    let wanted = match prompt.label.or(label) {
        Some(Label::Resolved) => 1,
        Some(Label::Contested) => evidence.clusters.len(),
        Some(Label::Indeterminate) | None => 0,
    };
    let relevant =
        evidence.clusters.iter().take(wanted).flat_map(|cluster| cluster.chunk_ids.iter().cloned()).collect();
    PromptLabel {
        prompt_id: prompt.id.clone(),
        true_label: prompt.label,
        label,
        redundancy,
        disagreement,
        fragility,
        clusters: evidence.clusters,
        relevant,
    }
}

/// Labels all prompts.
///
/// ```
/// use behavior_eval::labels::{LabelThresholds, labels};
/// use behavior_eval::suite::Suite;
/// let suites = fixtures::path("suites");
/// let suite = Suite::open(&suites.join("suite-200.jsonl"), &suites.join("suite-200.corpus.jsonl"))?;
/// let report = labels(suite.prompts(), &LabelThresholds::default());
/// assert!(report.figures.accuracy.is_some_and(|accuracy| accuracy.value >= 0.95));
/// # Ok::<(), behavior_eval::Error>(())
/// ```
pub fn labels(prompts: &[Prompt], thresholds: &LabelThresholds) -> LabelReport {
    let prompts: Vec<PromptLabel> = prompts.iter().map(|prompt| label(prompt, thresholds)).collect();
    let counts = LabelCounts::of(prompts.iter().map(|prompt| prompt.label));
    let known: Vec<&PromptLabel> = prompts.iter().filter(|prompt| prompt.true_label.is_some()).collect();
    let right = known.iter().filter(|prompt| prompt.label == prompt.true_label).count();
    let accuracy = (!known.is_empty()).then(|| Figure::share(right as u64, known.len() as u64));
    let confusion = moves(known.iter().map(|prompt| (prompt.true_label, prompt.label)));
    let sensitivity = sensitivity(&prompts, thresholds);
    LabelReport { figures: LabelFigures { counts, accuracy, confusion, sensitivity }, prompts }
}

/// Every threshold moved down and up by [`STEP`].
fn sensitivity(prompts: &[PromptLabel], thresholds: &LabelThresholds) -> Vec<SensitivityRow> {
    let mut rows = Vec::new();
    for threshold in ["disagreement", "redundancy", "fragility"] {
        for step in [-STEP, STEP] {
            let (mut moved, mut value) = (*thresholds, 0.0);
            if let Some(field) = moved.field(threshold) {
                // Rounded, so that 0.4 - 0.1 reads 0.3.
                *field = ((*field + step) * 1e9).round() / 1e9;
                value = *field;
            }
            let changed = prompts.iter().map(|prompt| (prompt.label, moved.of(prompt))).filter(|(from, to)| from != to);
            let moves = moves(changed);
            let flips = moves.iter().map(|one| one.prompts).sum();
            rows.push(SensitivityRow { threshold, value, flips, moves });
        }
    }
    rows
}

fn moves(pairs: impl Iterator<Item = (Option<Label>, Option<Label>)>) -> Vec<LabelMove> {
    let mut counts: BTreeMap<(Option<Label>, Option<Label>), u64> = BTreeMap::new();
    for pair in pairs {
        *counts.entry(pair).or_default() += 1;
    }
    counts.into_iter().map(|((from, to), prompts)| LabelMove { from, to, prompts }).collect()
}
