//! The measurements of single windows as bytes, and the report that they give together.
//!
//! ```text
//! one model:   per scored position, little-endian:  ln p f64, most likely token u32, whether it came u8
//! two models:  the same of the teacher, the same of the student, divergence f64
//! ```
//! **Invariant:** the report on the records of all windows, in order, is the report of [`compare`](super::compare) or
//! [`perplexity`](super::perplexity): both add the same numbers in the same order.

use serde::{Deserialize, Serialize};

use super::comparison::{Fidelity, PairRow, SCHEMA, Tally, compare_window};
use super::error::FidelityError;
use super::perplexity::{Perplexity, Scores, score_window};
use super::row::Prediction;
use super::window::{FidelityConfig, TextReport, Windows};
use crate::Result;
use crate::model::LanguageModel;

const PREDICTION_BYTES: usize = 13;
const PAIR_BYTES: usize = 2 * PREDICTION_BYTES + 8;

/// How a text is cut: all that a report needs beside the records of its windows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "fields speak for themselves")]
pub struct TextCut {
    pub n_ctx: usize,
    pub prefix: Vec<u32>,
    pub text_tokens: usize,
    pub windows: usize,
}

impl TextCut {
    /// Cuts a text, with the checks of [`compare`](super::compare) that need no model.
    ///
    /// # Errors
    /// Too short a text or window, and tokens that a vocabulary of `vocab_size` does not have.
    pub fn new(text: &[u32], config: &FidelityConfig, vocab_size: usize) -> Result<TextCut> {
        let windows = Windows::new(text, config, vocab_size)?;
        let (n_ctx, prefix) = (config.n_ctx, config.prefix.clone());
        Ok(TextCut { n_ctx, prefix, text_tokens: text.len(), windows: windows.count() })
    }

    fn report<F>(&self, schema: Option<u32>, predictions: u64, figures: Option<F>) -> Result<TextReport<F>> {
        Ok(TextReport {
            schema,
            n_ctx: self.n_ctx,
            prefix: self.prefix.clone(),
            text_tokens: self.text_tokens,
            windows: self.windows,
            predictions,
            figures: figures.ok_or(FidelityError::NoWindows)?,
        })
    }

    /// The bytes of a window's record must be as many as its scored positions need.
    fn rows<'a>(&self, window: usize, record: &'a [u8], row_bytes: usize) -> Result<std::slice::ChunksExact<'a, u8>> {
        let due = (self.n_ctx - self.n_ctx / 2).saturating_mul(row_bytes);
        if record.len() != due {
            return Err(FidelityError::Record { window, bytes: record.len(), due }.into());
        }
        Ok(record.chunks_exact(row_bytes))
    }
}

/// Measures window `window` of a text: the record that [`fidelity_of`] takes.
///
/// # Errors
/// As [`compare`](super::compare).
///
/// # Panics
/// When the text has no such window.
pub fn compare_record(
    teacher: &mut (dyn LanguageModel + Send),
    student: &mut dyn LanguageModel,
    text: &[u32],
    config: &FidelityConfig,
    window: usize,
) -> Result<Vec<u8>> {
    let vocab_size = student.vocab_size();
    if teacher.vocab_size() != vocab_size {
        return Err(FidelityError::VocabularyMismatch { teacher: teacher.vocab_size(), student: vocab_size }.into());
    }
    let windows = Windows::new(text, config, vocab_size)?;
    let mut record = Vec::new();
    for PairRow { teacher, student, kl } in compare_window(teacher, student, &windows.window(window))? {
        write(&teacher, &mut record);
        write(&student, &mut record);
        record.extend(kl.to_le_bytes());
    }
    Ok(record)
}

/// Scores window `window` of a text: the record that [`perplexity_of`] takes.
///
/// # Errors
/// As [`perplexity`](super::perplexity).
///
/// # Panics
/// When the text has no such window.
pub fn score_record(
    model: &mut dyn LanguageModel,
    text: &[u32],
    config: &FidelityConfig,
    window: usize,
) -> Result<Vec<u8>> {
    let windows = Windows::new(text, config, model.vocab_size())?;
    let mut record = Vec::new();
    score_window(model, &windows.window(window))?.iter().for_each(|prediction| write(prediction, &mut record));
    Ok(record)
}

/// The report on the records of all windows, in order, each given by `read`.
///
/// # Errors
/// Records of another length than their windows need, and those of `read`.
pub fn fidelity_of<E: From<crate::Error>>(
    cut: &TextCut,
    mut read: impl FnMut(usize) -> Result<Vec<u8>, E>,
) -> Result<TextReport<Fidelity>, E> {
    let (mut tally, mut predictions) = (None, 0);
    for window in 0..cut.windows {
        let record = read(window)?;
        let rows = cut.rows(window, &record, PAIR_BYTES)?;
        let tally = tally.get_or_insert_with(|| Tally::new(rows.len()));
        for (index, row) in rows.enumerate() {
            let (teacher, rest) = row.split_at(PREDICTION_BYTES);
            let (student, kl) = rest.split_at(PREDICTION_BYTES);
            tally.push(index, &PairRow { teacher: prediction(teacher), student: prediction(student), kl: f64_of(kl) });
            predictions += 1;
        }
    }
    Ok(cut.report(Some(SCHEMA), predictions, tally.and_then(Tally::finish))?)
}

/// As [`fidelity_of`], for one model.
///
/// # Errors
/// As [`fidelity_of`].
pub fn perplexity_of<E: From<crate::Error>>(
    cut: &TextCut,
    mut read: impl FnMut(usize) -> Result<Vec<u8>, E>,
) -> Result<TextReport<Perplexity>, E> {
    let (mut scores, mut predictions) = (Scores::default(), 0);
    for window in 0..cut.windows {
        let record = read(window)?;
        for row in cut.rows(window, &record, PREDICTION_BYTES)? {
            scores.push(&prediction(row));
            predictions += 1;
        }
    }
    Ok(cut.report(None, predictions, scores.finish())?)
}

fn write(prediction: &Prediction, out: &mut Vec<u8>) {
    let Prediction { log_prob, correct, top } = prediction;
    out.extend(log_prob.to_le_bytes());
    // Token ids are u32 everywhere, so none is cut off.
    out.extend(u32::try_from(*top).unwrap_or(u32::MAX).to_le_bytes());
    out.push(u8::from(*correct));
}

/// Reads the 13 bytes of a prediction.
fn prediction(bytes: &[u8]) -> Prediction {
    let mut top = [0; 4];
    top.copy_from_slice(&bytes[8..12]);
    Prediction { log_prob: f64_of(&bytes[..8]), correct: bytes[12] == 1, top: u32::from_le_bytes(top) as usize }
}

fn f64_of(bytes: &[u8]) -> f64 {
    let mut number = [0; 8];
    number.copy_from_slice(bytes);
    f64::from_le_bytes(number)
}
