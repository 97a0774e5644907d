//! How surprised one model is by a text.

use serde::Serialize;

use super::lockstep;
use super::row::{Prediction, RowPlace, predict};
use super::window::{FidelityConfig, TextReport, Window, Windows};
use crate::Result;
use crate::model::{LanguageModel, Role};
use crate::stats::{Estimate, Moments, Share, exp};

/// The figures of one model on the scored predictions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Perplexity {
    /// `exp` of the mean surprise.
    pub perplexity: Estimate,
    /// Mean of `-ln p` of the tokens that came, in nats.
    pub nll: Estimate,
    /// How often the most likely token came.
    pub top1_accuracy: Share,
}

#[derive(Debug, Default)]
pub(super) struct Scores {
    nll: Moments,
    correct: u64,
}

impl Scores {
    pub(super) fn push(&mut self, prediction: &Prediction) {
        self.nll.push(-prediction.log_prob);
        self.correct += u64::from(prediction.correct);
    }

    /// `None` without a scored position.
    pub(super) fn finish(&self) -> Option<Perplexity> {
        let nll = self.nll.estimate();
        let value = exp(nll.value);
        // First order: the error of exp(x) is exp(x) times the error of x.
        let perplexity = Estimate { value, standard_error: value * nll.standard_error };
        Some(Perplexity { perplexity, nll, top1_accuracy: Share::of(self.correct, self.nll.n())? })
    }
}

/// Scores one model on a tokenised text. `progress` gets the windows done and their number. Memory: one row of logits and
/// the predictions of a window beyond what the model needs.
///
/// # Errors
/// Too short a text or window, tokens the model does not know, and a model that fails.
pub fn perplexity(
    model: &mut dyn LanguageModel,
    text: &[u32],
    config: &FidelityConfig,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<TextReport<Perplexity>> {
    let windows = Windows::new(text, config, model.vocab_size())?;
    let mut scores = Scores::default();
    for window in windows.iter() {
        score_window(model, &window)?.iter().for_each(|prediction| scores.push(prediction));
        progress(window.index + 1, windows.count());
    }
    windows.report(None, scores.nll.n(), scores.finish())
}

/// Scores one model on the scored positions of a window.
pub(super) fn score_window(model: &mut dyn LanguageModel, window: &Window) -> Result<Vec<Prediction>> {
    let mut predictions = Vec::new();
    lockstep::alone(Role::Model, model, window, &mut |row, logits| {
        let place = RowPlace { role: Role::Model, window: window.index, position: row + 1 };
        predictions.push(predict(logits, window.target(row), place)?);
        Ok(())
    })?;
    Ok(predictions)
}
