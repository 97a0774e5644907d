//! Evidence taken away: which verdicts stand when a tenth of the corpus is gone.
//!
//! Chunks are removed, the touched prompts are worded anew and labelled by the rules of [`labels`](mod@crate::labels::rules), and
//! the gates run again. Stability is judged over the prompts whose label is what it was: there every gate must still
//! pass, and no figure may move by more than a twentieth.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::error::LabelError;
use super::evidence::Evidence;
use super::rules::{LabelReport, LabelThresholds, labels};
use crate::Result;
use crate::stats::SplitMix64;
use crate::suite::{ChunkKey, Label, Prompt, Suite};

/// Which chunks go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Removal {
    /// Any, each as likely as the other.
    Random,
    /// The same share of every source, as near as whole chunks allow.
    StratifiedBySource,
    /// Chunks whose answer has the fewest sources go first, chunks that do not bear on the question last. Chance decides
    /// between equals.
    MostFragileFirst,
}

/// How much evidence is removed, and which.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Perturbation {
    /// Share of all chunks, above 0 and below 1.
    pub fraction: f64,
    pub removal: Removal,
    pub seed: u64,
}

impl Default for Perturbation {
    fn default() -> Self {
        Self { fraction: 0.1, removal: Removal::Random, seed: 0 }
    }
}

/// A suite with part of its evidence gone.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Perturbed {
    pub perturbation: Perturbation,
    /// The suite that remains, prompt by prompt in the order of the whole one.
    pub suite: Suite,
    pub removed: BTreeSet<ChunkKey>,
    pub labels: LabelReport,
    /// Indices of prompts that show other chunks than before; only those need another answer.
    pub touched: Vec<usize>,
    /// Indices of prompts whose label is what it was, among them all untouched ones that have a label.
    pub kept: Vec<usize>,
}

impl Perturbed {
    /// The prompts that need another answer.
    pub(crate) fn touched_prompts(&self) -> Vec<&Prompt> {
        self.touched.iter().map(|&i| &self.suite.prompts()[i]).collect()
    }
}

/// Removes chunks and labels what remains. `before` are the labels of the whole suite.
///
/// # Errors
/// [`LabelError::Fraction`] for a share that is not between 0 and 1, [`LabelError::NothingToRemove`] where it rounds to no chunk.
pub fn perturb(
    suite: &Suite,
    before: &LabelReport,
    thresholds: &LabelThresholds,
    perturbation: &Perturbation,
) -> Result<Perturbed> {
    let removed = chosen(suite, perturbation)?;
    let remaining = suite.without(&removed);
    let labels = labels(remaining.prompts(), thresholds);
    let pairs = suite.prompts().iter().zip(remaining.prompts()).enumerate();
    let touched = pairs.filter(|(_, (was, is))| was.chunks != is.chunks).map(|(i, _)| i).collect();
    let gates = |report: &LabelReport| -> Vec<Option<Label>> { report.prompts.iter().map(|p| p.gating()).collect() };
    let pairs = gates(before).into_iter().zip(gates(&labels)).enumerate();
    let kept = pairs.filter(|(_, (was, is))| was.is_some() && was == is).map(|(i, _)| i).collect();
    Ok(Perturbed { perturbation: *perturbation, suite: remaining, removed, labels, touched, kept })
}

/// The chunks that go.
fn chosen(suite: &Suite, perturbation: &Perturbation) -> Result<BTreeSet<ChunkKey>> {
    let fraction = perturbation.fraction;
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(LabelError::Fraction { fraction }.into());
    }
    let all = suite.prompts().iter().flat_map(|prompt| prompt.chunks.iter().map(move |chunk| (prompt, chunk)));
    let mut chunks: Vec<(ChunkKey, &str)> =
        all.map(|(prompt, chunk)| (key(prompt, &chunk.id), &*chunk.source)).collect();
    let n = (fraction * chunks.len() as f64).round() as usize;
    if n == 0 {
        return Err(LabelError::NothingToRemove { fraction, chunks: chunks.len() }.into());
    }
    let mut random = SplitMix64::new(perturbation.seed);
    random.shuffle(&mut chunks);
    match perturbation.removal {
        Removal::Random => {}
        Removal::StratifiedBySource => stratify(&mut chunks),
        Removal::MostFragileFirst => {
            let weights = weights(suite);
            chunks.sort_by_key(|(key, _)| weights.get(key).copied().unwrap_or(u64::MAX));
        }
    }
    Ok(chunks.into_iter().take(n).map(|(key, _)| key).collect())
}

/// Orders shuffled chunks so that every beginning of the list holds each source in about the share it has of the whole.
fn stratify(chunks: &mut Vec<(ChunkKey, &str)>) {
    let mut sizes: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, source) in chunks.iter() {
        *sizes.entry(source).or_default() += 1;
    }
    // The k-th of n chunks of a source belongs at the share (2 k + 1) / 2 n of the list; compared without rounding.
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    let mut placed: Vec<_> = std::mem::take(chunks)
        .into_iter()
        .map(|chunk| {
            let k = seen.entry(chunk.1).or_default();
            *k += 1;
            ((2 * *k - 1, 2 * sizes[chunk.1]), chunk)
        })
        .collect();
    placed
        .sort_by(|((a, m), _), ((b, n), _)| (u128::from(*a) * u128::from(*n)).cmp(&(u128::from(*b) * u128::from(*m))));
    chunks.extend(placed.into_iter().map(|(_, chunk)| chunk));
}

fn key(prompt: &Prompt, chunk_id: &str) -> ChunkKey {
    ChunkKey { prompt_id: prompt.id.clone(), chunk_id: chunk_id.to_owned() }
}

/// Number of sources of the answer that each bearing chunk belongs to.
fn weights(suite: &Suite) -> BTreeMap<ChunkKey, u64> {
    let mut weights = BTreeMap::new();
    for prompt in suite.prompts() {
        for cluster in Evidence::of(prompt).clusters {
            for chunk_id in &cluster.chunk_ids {
                weights.insert(key(prompt, chunk_id), cluster.weight());
            }
        }
    }
    weights
}

/// How far a figure may move.
const STABLE_WITHIN: f64 = 0.05;

/// A figure over the prompts that keep their label, with all of the evidence and with less.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct FigureMove {
    pub figure: String,
    /// With all of the evidence.
    pub before: f64,
    pub after: f64,
    /// Whether its gate passes with less; a figure that gates nothing passes.
    pub passes: bool,
    /// Whether it passes and moved by no more than 0.05.
    pub stable: bool,
}

impl FigureMove {
    /// Judges one figure. A figure that is no number is not stable.
    ///
    /// ```
    /// use behavior_eval::labels::FigureMove;
    /// assert!(FigureMove::new("citation_recall", 0.80, 0.75, true).stable);
    /// assert!(!FigureMove::new("citation_recall", 0.80, 0.74, true).stable);
    /// assert!(!FigureMove::new("citation_recall", 0.80, 0.80, false).stable);
    /// ```
    pub fn new(figure: impl Into<String>, before: f64, after: f64, passes: bool) -> Self {
        // A twentieth that decimal fractions miss by a rounding is still a twentieth.
        let is_near = (after - before).abs() <= STABLE_WITHIN + 1e-12;
        Self { figure: figure.into(), before, after, passes, stable: passes && is_near }
    }
}

/// Whether the verdict stands with less evidence.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Stability {
    pub perturbation: Perturbation,
    pub chunks_removed: u64,
    pub prompts: u64,
    pub prompts_touched: u64,
    /// Prompts that keep their label; the figures are of these.
    pub prompts_surviving: u64,
    pub figures: Vec<FigureMove>,
    pub stable: bool,
}

impl Stability {
    /// The verdict from both runs' figures over the prompts that keep their label. A list without figures is not stable.
    pub fn new(perturbed: &Perturbed, figures: Vec<FigureMove>) -> Self {
        Self {
            perturbation: perturbed.perturbation,
            chunks_removed: perturbed.removed.len() as u64,
            prompts: perturbed.suite.prompts().len() as u64,
            prompts_touched: perturbed.touched.len() as u64,
            prompts_surviving: perturbed.kept.len() as u64,
            stable: !figures.is_empty() && figures.iter().all(|figure| figure.stable),
            figures,
        }
    }
}
