//! Drafts by the MTP block of the model: each guess reads the model's final hidden state and the newest token.
//!
//! ```text
//! position    0   1   2   3                    hidden states h, as the model computed them
//! token       a   b   c   d   e                e is the newest one, chosen from the logits of position 3
//! block       hb  hc  hd  he                   a row of each position with the token behind it, in a cache of its own
//!                          └─► f'              the first guess; the block's own state of this row and f' give the next one
//! ```
//!
//! Rows of guesses leave the cache again: where a guess is accepted, the model's own state takes the place of the block's.
//! Positions that the session held before the answer (of an earlier turn, or from a prompt cache) come without states, so the
//! block reads the sequence from the first state on. Its rotations depend on distances alone, so its positions may count from
//! there.
//!
//! **Invariant:** states wait for their rows only until [`MTP_ROWS`] of them are there, so that a long prompt takes no
//! memory of its length.

use std::sync::Arc;

use mla_attention::{CacheType, CompressedMlaCache};
use tl_kernels::math;

use super::drafter::{Confidence, Drafter, Guesses};
use crate::error::{Error, Result};
use crate::forward::model::CraftsmanModel;
use crate::forward::mtp::{MTP_ROWS, MtpRows, MtpScratch};
use crate::load::error::LoadError;
use crate::sessions::sampler::most_likely;

/// The probabilities of a first guess from which on each [`Confidence`] above 0 counts.
const LEVELS: [f32; Confidence::MAX] = [0.5, 0.7, 0.9];
/// A further guess that the block gives less probability than this ends the draft in front of it.
const LEAST_PROBABILITY: f32 = 0.4;

/// Guesses tokens with the MTP block of a model that was opened [with it](crate::ModelFiles::with_mtp).
#[derive(Debug)]
pub struct MtpDrafter {
    model: Arc<CraftsmanModel>,
    cost: f64,
    n_ctx: usize,
    cache_type: CacheType,
    /// Made for the first row, so that a drafter that waits for its turn takes no memory.
    cache: Option<CompressedMlaCache>,
    /// The position of the first row of the cache.
    start: usize,
    /// The hidden states of the positions behind those of the cache, `[n, hidden]`.
    waiting: Vec<f32>,
    scratch: MtpScratch,
    /// The hidden state in front of a further guess, `[hidden]`.
    state: Vec<f32>,
    /// Whether a computation failed: no more drafts until the next sequence.
    is_stopped: bool,
}

/// The input of the block.
#[derive(Clone, Copy)]
enum Rows<'a> {
    /// These tokens and the states that wait from number `first` on.
    Waiting { first: usize, tokens: &'a [u32] },
    /// A guess and the block's own state in front of it.
    Further(&'a u32),
}

impl MtpDrafter {
    /// A drafter for sequences of at most `n_ctx` tokens of `model`, whose cache has numbers of type `ty`. `cost` is the time
    /// of a guess in steps of one row ([`ModelFiles::mtp_cost`](crate::ModelFiles::mtp_cost)).
    ///
    /// # Errors
    /// [`LoadError::NoMtp`] for a model without the block.
    pub fn new(model: Arc<CraftsmanModel>, n_ctx: usize, ty: CacheType, cost: f64) -> Result<MtpDrafter> {
        if model.mtp().is_none() {
            return Err(Error::Load(LoadError::NoMtp));
        }
        Ok(MtpDrafter {
            model,
            cost,
            n_ctx,
            cache_type: ty,
            cache: None,
            start: 0,
            waiting: Vec::new(),
            scratch: MtpScratch::default(),
            state: Vec::new(),
            is_stopped: false,
        })
    }

    /// Rows in the cache.
    fn rows(&self) -> usize {
        self.cache.as_ref().map_or(0, CompressedMlaCache::len)
    }

    /// Positions whose states have come: those of the cache, and those that wait.
    fn end(&self) -> usize {
        self.start + self.rows() + self.waiting.len() / self.model.config().hidden
    }

    /// Moves tokens and the states in front of them through the block.
    fn forward(&mut self, rows: Rows<'_>) -> Result<()> {
        let MtpDrafter { model, cache, waiting, scratch, state, n_ctx, cache_type, .. } = self;
        let Some(mtp) = model.mtp() else { return Err(Error::Load(LoadError::NoMtp)) };
        let cache = match cache {
            Some(cache) => cache,
            None => cache.insert(CompressedMlaCache::new([mtp.block.cache_shape()], *n_ctx, *cache_type)?),
        };
        let width = model.config().hidden;
        let rows = match rows {
            Rows::Waiting { first, tokens } => {
                MtpRows { tokens, hidden: &waiting[first * width..][..tokens.len() * width] }
            }
            Rows::Further(token) => MtpRows { tokens: std::slice::from_ref(token), hidden: state },
        };
        mtp.forward(rows, cache, scratch)
    }

    /// Moves the states that wait through the block, as far as `sequence` has the tokens behind them; how many.
    fn catch_up(&mut self, sequence: &[u32]) -> Result<usize> {
        let width = self.model.config().hidden;
        let mut done = 0;
        loop {
            let tokens = sequence.get(self.start + self.rows() + 1..).unwrap_or_default();
            let n = tokens.len().min(self.waiting.len() / width - done).min(MTP_ROWS);
            if n == 0 {
                break;
            }
            self.forward(Rows::Waiting { first: done, tokens: &tokens[..n] })?;
            done += n;
        }
        self.waiting.drain(..done * width);
        Ok(done)
    }

    /// Adds guesses at the tokens behind `sequence`, and their number to `computed`; the probability of the first one.
    fn guess(&mut self, sequence: &[u32], most: usize, draft: &mut Vec<u32>, computed: &mut usize) -> Result<f32> {
        // The state of the newest token's position is not there yet, so all states before it are used up.
        if self.end() + 1 != sequence.len() || self.catch_up(sequence)? == 0 {
            return Ok(0.0);
        }
        let held = self.rows();
        let first = self.chain(most, draft, computed);
        self.cut(held);
        first
    }

    /// Adds guesses behind the last row of the cache, each from the one before it, and to `computed` their number with the one
    /// that was too unlikely; the probability of the first one.
    fn chain(&mut self, most: usize, draft: &mut Vec<u32>, computed: &mut usize) -> Result<f32> {
        *computed += 1;
        let Some((token, first)) = self.likeliest() else { return Ok(0.0) };
        draft.push(token);
        let mut last = token;
        while draft.len() < most {
            *computed += 1;
            let (hidden, width) = (self.scratch.hidden(), self.model.config().hidden);
            self.state.clear();
            self.state.extend_from_slice(&hidden[hidden.len() - width..]);
            self.forward(Rows::Further(&last))?;
            match self.likeliest() {
                Some((token, probability)) if probability >= LEAST_PROBABILITY => last = token,
                _ => break,
            }
            draft.push(last);
        }
        Ok(first)
    }

    /// The token of the largest logit behind the last row that was computed, and its probability.
    fn likeliest(&mut self) -> Option<(u32, f32)> {
        likeliest(self.model.mtp()?.logits(&mut self.scratch))
    }

    /// Drops the rows from `len` on.
    fn cut(&mut self, len: usize) {
        if let Some(cache) = &mut self.cache {
            cache.truncate(len);
        }
    }

    /// Ends the drafts of this sequence behind a failure, which changes no answer.
    fn stop(&mut self, error: &Error) {
        tracing::warn!(%error, "the MTP block failed; the answer goes on without its guesses");
        self.is_stopped = true;
        self.waiting.clear();
    }
}

impl Drafter for MtpDrafter {
    fn begin(&mut self) {
        self.cut(0);
        self.waiting.clear();
        (self.start, self.is_stopped) = (0, false);
    }

    fn draft(&mut self, sequence: &[u32], most: usize, draft: &mut Vec<u32>) -> Guesses {
        let (mut computed, mut confidence) = (0, Confidence::default());
        if self.is_stopped {
            return Guesses::default();
        }
        match self.guess(sequence, most, draft, &mut computed) {
            Ok(first) => confidence = Confidence::new(LEVELS.iter().filter(|&&level| first >= level).count()),
            Err(error) => {
                draft.clear();
                self.stop(&error);
            }
        }
        Guesses { confidence, computed }
    }

    fn observe(&mut self, sequence: &[u32], first: usize, hidden: &[f32]) {
        if self.is_stopped {
            return;
        }
        if self.rows() == 0 && self.waiting.is_empty() {
            self.start = first;
        }
        if first != self.end() {
            // Without the states between, the rows would not follow each other: the block reads on from here.
            self.begin();
            self.start = first;
        }
        let width = self.model.config().hidden;
        for states in hidden.chunks(MTP_ROWS * width) {
            self.waiting.extend_from_slice(states);
            if self.waiting.len() < MTP_ROWS * width {
                continue;
            }
            // The last state waits for the draft, which follows from its row.
            let known = &sequence[..sequence.len().min(self.end())];
            if let Err(error) = self.catch_up(known) {
                return self.stop(&error);
            }
        }
    }

    fn cost(&self) -> f64 {
        self.cost
    }
}

/// The token of the largest logit, the first of equal ones, and its probability, with the same bits on every platform; `None`
/// for logits that are no numbers.
fn likeliest(logits: &[f32]) -> Option<(u32, f32)> {
    let token = most_likely(logits).ok()?;
    let largest = logits[token as usize];
    let sum: f64 = logits.iter().map(|logit| f64::from(math::exp(logit - largest))).sum();
    Some((token, (1.0 / sum) as f32))
}

#[cfg(test)]
mod tests {
    use super::likeliest;

    #[test]
    fn the_likeliest_token_has_its_share_of_the_exponentials() {
        let (token, probability) = likeliest(&[0.0, 3.0f32.ln(), f32::NEG_INFINITY, 3.0f32.ln()]).expect("numbers");
        assert_eq!(token, 1, "the first of equal ones");
        assert!((probability - 3.0 / 7.0).abs() < 1e-6, "{probability}");
        for logits in [&[][..], &[f32::NAN, 0.0], &[f32::INFINITY], &[f32::NEG_INFINITY; 2]] {
            assert_eq!(likeliest(logits), None, "{logits:?}");
        }
    }
}
