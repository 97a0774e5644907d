//! Corrections teach a running session: an addition to the head.
//!
//! ```text
//! correction (prompt, right answer) ──► hidden states h, logits z of the session's model and adapters
//!     d = softmax(z) - [right token]        the gradient of the cross entropy by the logits
//!     MicroLora::update(h, d)                once per token of the answer and pass
//! ──► a new set of adapters in the session's slot, which counts from the next step on
//! ```
//! Off unless a program calls it: no verb and no default does.
//!
//! **Invariant:** weights and the adapters that the session had stay as they are; [`HeadFeedback::forget`] brings them back.

use std::sync::Arc;

use moe_runtime::adapters::{AdapterSet, AdapterSlot};
use moe_runtime::forward::Taps;
use moe_runtime::{Session, SessionError};

use super::error::AdaptError;
use super::micro_lora::MicroLora;
use crate::error::Result;
use crate::train::ops::loss::cross_entropy;

/// How strongly corrections count.
#[derive(Clone, Copy, Debug)]
pub struct FeedbackOptions {
    /// Rank of the addition.
    pub rank: usize,
    /// Size of a step, for hidden states of length 1.
    pub rate: f32,
    /// Passes over the tokens of a correction.
    pub passes: usize,
    /// Seed of the first factor.
    pub seed: u64,
}

impl Default for FeedbackOptions {
    fn default() -> Self {
        Self { rank: 2, rate: 0.5, passes: 4, seed: 0 }
    }
}

/// The effect of one correction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lesson {
    /// Tokens of the answer.
    pub tokens: usize,
    /// Mean cross entropy of the answer before, in nats.
    pub loss_before: f64,
    /// The same behind the update.
    pub loss_after: f64,
}

/// An addition to the head of one session's model, which corrections teach.
#[derive(Debug)]
pub struct HeadFeedback {
    slot: AdapterSlot,
    /// The adapters that the session had.
    base: Option<Arc<AdapterSet>>,
    addition: MicroLora,
    options: FeedbackOptions,
}

impl HeadFeedback {
    /// An addition that adds nothing yet, for the model and the adapters of `session`.
    #[must_use]
    pub fn new(session: &Session, options: FeedbackOptions) -> HeadFeedback {
        let config = session.model().config();
        let addition = MicroLora::blank(config.hidden, config.vocab, options.rank.max(1), options.seed);
        let slot = session.adapters().clone();
        HeadFeedback { base: slot.current(), slot, addition, options }
    }

    /// Learns that `answer` is the right continuation of `prompt`. The session keeps its tokens, and computes with what was
    /// learned from its next step on.
    ///
    /// # Errors
    /// [`AdaptError::EmptyFeedback`], and tokens that do not fit the session's context.
    pub fn learn(&mut self, session: &Session, prompt: &[u32], answer: &[u32]) -> Result<Lesson> {
        let (Some(from), false) = (prompt.len().checked_sub(1), answer.is_empty()) else {
            return Err(AdaptError::EmptyFeedback.into());
        };
        let vocab = session.model().config().vocab;
        if let Some(&token) = answer.iter().find(|&&token| token as usize >= vocab) {
            return Err(moe_runtime::Error::from(SessionError::Token { token, vocab }).into());
        }
        let rows = self.rows(session, [prompt, answer].concat(), from)?;
        let loss_before = self.loss(&rows, answer);
        for _ in 0..self.options.passes {
            for (row, &token) in rows.iter().zip(answer) {
                let (_, d) = self.gradient(row, token);
                let length2: f32 = row.hidden.iter().map(|h| h * h).sum();
                self.addition.update(&row.hidden, &d, self.options.rate / length2.max(f32::MIN_POSITIVE));
            }
        }
        let loss_after = self.loss(&rows, answer);
        let low_rank = self.addition.low_rank().map_err(moe_runtime::Error::from)?;
        let base = self.base.as_deref().cloned().unwrap_or_default();
        self.slot.swap(Some(Arc::new(base.with_head_addition(&low_rank))));
        let lesson = Lesson { tokens: answer.len(), loss_before, loss_after };
        tracing::info!(
            name: "AdapterUpdated",
            tensor = "output.weight",
            rank = self.addition.rank(),
            tokens = lesson.tokens,
            loss_before = lesson.loss_before,
            loss_after = lesson.loss_after,
            "AdapterUpdated"
        );
        Ok(lesson)
    }

    /// Takes back all that was learned.
    pub fn forget(self) {
        self.slot.swap(self.base);
    }

    /// The final hidden state and the logits without the addition of each position that predicts a token of the answer.
    fn rows(&self, session: &Session, mut tokens: Vec<u32>, from: usize) -> Result<Vec<Row>> {
        // The last token is predicted, and predicts nothing.
        tokens.pop();
        let mut probe = session.fork()?.with_adapters(AdapterSlot::new(self.base.clone()));
        probe.reset();
        let mut hidden = FinalHidden { width: session.model().config().hidden, rows: Vec::new() };
        let mut logits = Vec::new();
        probe.step_rows(&tokens, from, &mut hidden, &mut |_, row| {
            logits.push(row.to_vec());
            Ok(())
        })?;
        let rows = hidden.rows.drain(from..).zip(logits);
        Ok(rows.map(|(hidden, logits)| Row { hidden, logits }).collect())
    }

    /// Mean cross entropy of the answer.
    fn loss(&self, rows: &[Row], answer: &[u32]) -> f64 {
        let sum: f64 = rows.iter().zip(answer).map(|(row, &token)| self.gradient(row, token).0).sum();
        sum / answer.len().max(1) as f64
    }

    /// The cross entropy of `token` at a position, and its gradient by the logits.
    fn gradient(&self, row: &Row, token: u32) -> (f64, Vec<f32>) {
        let mut logits = row.logits.clone();
        self.addition.add(&row.hidden, &mut logits);
        let mut d = vec![0.0; logits.len()];
        let loss = cross_entropy(&logits, token, 1.0, &mut d);
        (loss, d)
    }
}

/// One position that predicts a token of the answer.
struct Row {
    /// The final hidden state, `[hidden]`.
    hidden: Vec<f32>,
    /// The logits without the addition, `[vocab]`.
    logits: Vec<f32>,
}

/// Keeps the final hidden states.
struct FinalHidden {
    width: usize,
    rows: Vec<Vec<f32>>,
}

impl Taps for FinalHidden {
    fn final_hidden(&mut self, _first: usize, x: &[f32]) {
        self.rows.extend(x.chunks_exact(self.width).map(<[f32]>::to_vec));
    }
}
