//! How close a student is to its teacher on a text.
//!
//! Both models see the same windows; at every scored position the whole distributions are compared. Each position keeps one
//! number, the divergence, for the quantiles; everything else is a running sum.

use serde::Serialize;

use super::error::FidelityError;
use super::perplexity::{Perplexity, Scores};
use super::row::{Prediction, RowPlace};
use super::window::{FidelityConfig, TextReport, Window, Windows};
use super::{lockstep, row};
use crate::Result;
use crate::model::{LanguageModel, Role};
use crate::stats::{Estimate, Moments, Share, exp, quantile};

/// Version of the report's schema.
pub const SCHEMA: u32 = 1;

/// The figures of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Fidelity {
    pub teacher: Perplexity,
    pub student: Perplexity,
    /// `ln(perplexity of the student / perplexity of the teacher)`; the error is that of the paired differences.
    pub ln_ratio: Estimate,
    /// KL(teacher || student) in nats.
    pub kl: Divergence,
    /// Root of the mean squared difference of the right token's probability.
    pub rms_delta_p: Estimate,
    /// Mean difference of the right token's probability, student minus teacher.
    pub mean_delta_p: Estimate,
    /// How often both find the same token most likely.
    pub same_top1: Share,
    /// How often one of them is right and the other is not.
    pub flips: Flips,
    /// Mean divergence at each scored position of a window, the first scored one first.
    pub kl_by_position: Vec<f64>,
    /// Mean divergence in each window, for paired comparisons of students.
    pub kl_by_window: Vec<f64>,
}

/// How the divergences are spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Divergence {
    pub mean: Estimate,
    pub median: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Divergence {
    /// `None` for no values.
    pub(super) fn of(mut values: Vec<f64>, mean: Estimate) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        let at = |q| quantile(&values, q);
        Some(Self { mean, median: at(0.5)?, p90: at(0.9)?, p99: at(0.99)?, p999: at(0.999)?, max: at(1.0)? })
    }
}

/// Predictions whose correctness changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Flips {
    /// The teacher's most likely token came, the student's did not.
    pub lost: u64,
    /// The other way round.
    pub gained: u64,
    pub share: Share,
}

/// Both predictions at one position, and their divergence.
#[derive(Clone, Copy, Debug)]
pub(super) struct PairRow {
    pub(super) teacher: Prediction,
    pub(super) student: Prediction,
    /// KL(teacher || student) in nats.
    pub(super) kl: f64,
}

/// Gathers [`Fidelity`] from positions in order.
#[derive(Debug, Default)]
pub(super) struct Tally {
    teacher: Scores,
    student: Scores,
    ln_ratio: Moments,
    kl: Moments,
    kl_values: Vec<f64>,
    kl_by_position: Vec<Moments>,
    delta_p: Moments,
    delta_p_squared: Moments,
    same_top: u64,
    lost: u64,
    gained: u64,
}

impl Tally {
    /// For windows of which `scored` positions count.
    pub(super) fn new(scored: usize) -> Self {
        Self { kl_by_position: vec![Moments::default(); scored], ..Self::default() }
    }

    /// Takes scored position number `index` of a window.
    pub(super) fn push(&mut self, index: usize, PairRow { teacher, student, kl }: &PairRow) {
        let kl = *kl;
        self.teacher.push(teacher);
        self.student.push(student);
        self.ln_ratio.push(teacher.log_prob - student.log_prob);
        self.kl.push(kl);
        self.kl_values.push(kl);
        self.kl_by_position[index].push(kl);
        let delta = exp(student.log_prob) - exp(teacher.log_prob);
        self.delta_p.push(delta);
        self.delta_p_squared.push(delta * delta);
        self.same_top += u64::from(teacher.top == student.top);
        self.lost += u64::from(teacher.correct && !student.correct);
        self.gained += u64::from(!teacher.correct && student.correct);
    }

    /// `None` without a scored position.
    pub(super) fn finish(self) -> Option<Fidelity> {
        let n = self.kl.n();
        let scored = self.kl_by_position.len().max(1);
        let mean = |window: &[f64]| window.iter().sum::<f64>() / window.len() as f64;
        let kl_by_window = self.kl_values.chunks(scored).map(mean).collect();
        let squared = self.delta_p_squared.estimate();
        let rms = squared.value.sqrt();
        // First order: the error of sqrt(x) is that of x over twice the root.
        let rms_error = if rms > 0.0 { squared.standard_error / (2.0 * rms) } else { 0.0 };
        Some(Fidelity {
            teacher: self.teacher.finish()?,
            student: self.student.finish()?,
            ln_ratio: self.ln_ratio.estimate(),
            kl: Divergence::of(self.kl_values, self.kl.estimate())?,
            rms_delta_p: Estimate { value: rms, standard_error: rms_error },
            mean_delta_p: self.delta_p.estimate(),
            same_top1: Share::of(self.same_top, n)?,
            flips: Flips { lost: self.lost, gained: self.gained, share: Share::of(self.lost + self.gained, n)? },
            kl_by_position: self.kl_by_position.iter().map(Moments::mean).collect(),
            kl_by_window,
        })
    }
}

/// Measures a student against its teacher on a tokenised text. `progress` gets the windows done and their number.
///
/// The teacher runs on a thread of its own, in step with the student. Memory beyond what the models need: two rows of
/// logits (`8 * vocab_size` bytes), the predictions of a window and 8 bytes per prediction.
///
/// # Errors
/// Too short a text or window, tokens a model does not know, different vocabularies, logits that are no numbers, and
/// a model that fails.
pub fn compare(
    teacher: &mut (dyn LanguageModel + Send),
    student: &mut dyn LanguageModel,
    text: &[u32],
    config: &FidelityConfig,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<TextReport<Fidelity>> {
    let vocab_size = student.vocab_size();
    if teacher.vocab_size() != vocab_size {
        return Err(FidelityError::VocabularyMismatch { teacher: teacher.vocab_size(), student: vocab_size }.into());
    }
    let windows = Windows::new(text, config, vocab_size)?;
    let mut tally = Tally::new(windows.scored());
    for window in windows.iter() {
        let rows = compare_window(teacher, student, &window)?;
        rows.iter().enumerate().for_each(|(index, row)| tally.push(index, row));
        progress(window.index + 1, windows.count());
    }
    windows.report(Some(SCHEMA), tally.kl.n(), tally.finish())
}

/// Compares two models on the scored positions of a window.
pub(super) fn compare_window(
    teacher: &mut (dyn LanguageModel + Send),
    student: &mut dyn LanguageModel,
    window: &Window,
) -> Result<Vec<PairRow>> {
    let mut rows = Vec::new();
    lockstep::both(teacher, student, window, &mut |row, t, s| {
        let places =
            [Role::Teacher, Role::Student].map(|role| RowPlace { role, window: window.index, position: row + 1 });
        let (teacher, student, kl) = row::compare(t, s, window.target(row), places)?;
        rows.push(PairRow { teacher, student, kl });
        Ok(())
    })?;
    Ok(rows)
}
