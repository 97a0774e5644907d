//! A sequence of tokens with the cache of their keys and values: a [`Step`] of one segment at a time.
//!
//! A prompt runs in chunks, a generated token alone; both give the same bits, so a session may be fed in any way, cut
//! back with [`Session::truncate`] and continued.
//!
//! **Invariant:** after an error the session holds exactly the tokens it held before the call.

use std::sync::Arc;

use mla_attention::{CacheBlock, CacheType, CompressedMlaCache};

use crate::adapters::slot::AdapterSlot;
use crate::error::{Error, Result};
use crate::forward::model::{CraftsmanModel, LOGIT_ROWS};
use crate::forward::taps::Taps;
use crate::sessions::error::SessionError;
use crate::sessions::interrupt::Interrupt;
use crate::sessions::step::{Logits, Step, StepSegment, check_tokens};

/// Receives the logits `[vocab]` of one position.
pub type LogitsSink<'a> = dyn FnMut(usize, &[f32]) -> Result<()> + 'a;

/// One sequence of tokens over a shared model.
#[derive(Debug)]
pub struct Session {
    cache: CompressedMlaCache,
    step: Step,
    chunk: usize,
    adapters: AdapterSlot,
}

impl Session {
    /// Tokens per batch of a prompt: with four experts of 64 per token, sixteen tokens share an expert's weights.
    pub const DEFAULT_CHUNK: usize = 256;

    /// An empty sequence with room for `n_ctx` tokens.
    ///
    /// # Errors
    /// [`SessionError::ContextTooLong`] beyond the model's own limit, and memory that cannot be had.
    pub fn new(model: Arc<CraftsmanModel>, n_ctx: usize, ty: CacheType) -> Result<Session> {
        let (step, adapters) = (Step::new(model), AdapterSlot::default());
        Ok(Session { cache: step.new_cache(n_ctx, ty)?, step, chunk: Session::DEFAULT_CHUNK, adapters })
    }

    /// The same session with prompts cut into batches of `chunk` tokens (at least 1). Results do not depend on it.
    #[must_use]
    pub fn with_chunk(mut self, chunk: usize) -> Session {
        self.chunk = chunk.max(1);
        self
    }

    /// The same session with the adapters of `slot`. Every call that appends tokens reads the slot once, so another thread
    /// may put other adapters there at any time: they count from the next call on, and the cache keeps what earlier tokens
    /// computed.
    #[must_use]
    pub fn with_adapters(mut self, slot: AdapterSlot) -> Session {
        self.adapters = slot;
        self
    }

    /// The place that the adapters are taken from.
    #[must_use]
    pub fn adapters(&self) -> &AdapterSlot {
        &self.adapters
    }

    /// The model that computes the sequence.
    #[must_use]
    pub fn model(&self) -> &Arc<CraftsmanModel> {
        self.step.model()
    }

    /// Number of tokens in the sequence.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether the sequence has no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// Number of tokens that fit the context.
    #[must_use]
    pub fn n_ctx(&self) -> usize {
        self.cache.n_ctx()
    }

    /// The keys and values, or latents, of the tokens.
    #[must_use]
    pub fn cache(&self) -> &CompressedMlaCache {
        &self.cache
    }

    /// Removes all tokens from the sequence.
    pub fn reset(&mut self) {
        self.cache.reset();
    }

    /// Removes the tokens from position `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.cache.truncate(len);
    }

    /// Replaces the sequence by the positions of `blocks`, full blocks of a cache of the same model and type.
    ///
    /// # Errors
    /// As [`CompressedMlaCache::resume`]; the session is then empty.
    pub fn resume(&mut self, blocks: &[Arc<CacheBlock>]) -> Result<()> {
        Ok(self.cache.resume(blocks)?)
    }

    /// A second session that continues from here on its own, with the present adapters in a slot of its own. The two share
    /// what they hold.
    ///
    /// # Errors
    /// Memory for the rest of the second context that cannot be had.
    pub fn fork(&self) -> Result<Session> {
        let (step, adapters) = (Step::new(self.model().clone()), AdapterSlot::new(self.adapters.current()));
        Ok(Session { cache: self.cache.fork()?, step, chunk: self.chunk, adapters })
    }

    /// Appends `tokens` and returns the logits `[vocab]` that follow the last one.
    ///
    /// # Errors
    /// [`SessionError::NoTokens`], [`SessionError::Token`], [`SessionError::ContextFull`] with both numbers, or the failure of a layer.
    pub fn step<T: Taps>(&mut self, tokens: &[u32], taps: &mut T) -> Result<&[f32]> {
        self.step_unless(tokens, &Interrupt::default(), taps)?;
        Ok(self.step.logits(0))
    }

    /// As [`Session::step`]; `None` when `interrupt` was raised before the last layer of the last chunk. The whole chunks
    /// before that are part of the session then.
    ///
    /// # Errors
    /// As [`Session::step`].
    pub fn step_unless<T: Taps>(
        &mut self,
        tokens: &[u32],
        interrupt: &Interrupt,
        taps: &mut T,
    ) -> Result<Option<&[f32]>> {
        self.read_unless(tokens, interrupt, taps, &mut |_, _| {})
    }

    /// As [`Session::step_unless`]; `on_hidden` gets the first position and the final hidden states `[n, hidden]` of each chunk.
    pub(crate) fn read_unless<T: Taps>(
        &mut self,
        tokens: &[u32],
        interrupt: &Interrupt,
        taps: &mut T,
        on_hidden: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<Option<&[f32]>> {
        let is_whole = self.run(tokens, (Logits::Last, interrupt), taps, |step, first, _| {
            on_hidden(first, step.hidden(0));
            Ok(())
        })?;
        Ok(is_whole.then(|| self.step.logits(0)))
    }

    /// The final hidden states `[rows, hidden]` of the first `rows` rows of the last chunk.
    pub(crate) fn last_hidden(&self, rows: usize) -> &[f32] {
        self.step.hidden_rows(0, rows)
    }

    /// The logits `[vocab]` of the last [`Session::step`].
    pub(crate) fn last_logits(&self) -> &[f32] {
        self.step.logits(0)
    }

    /// Appends `tokens`, few enough for one batch, and returns the logits `[tokens, vocab]` that follow each of them; `None`
    /// when `interrupt` was raised before the last layer, and the session is then as before.
    ///
    /// # Errors
    /// As [`Session::step`].
    pub(crate) fn verify_unless<T: Taps>(
        &mut self,
        tokens: &[u32],
        interrupt: &Interrupt,
        taps: &mut T,
    ) -> Result<Option<&[f32]>> {
        self.step.set_adapters(self.adapters.current());
        let segment = StepSegment { cache: 0, tokens, logits: Logits::All, interrupt };
        let is_whole = self.run_chunk(&segment, taps, &mut |_, _, _| Ok(()))?;
        Ok(is_whole.then(|| self.step.logits(0)))
    }

    /// Appends `tokens` without computing logits.
    ///
    /// # Errors
    /// As [`Session::step`].
    pub fn prefill<T: Taps>(&mut self, tokens: &[u32], taps: &mut T) -> Result<()> {
        self.run(tokens, (Logits::None, &Interrupt::default()), taps, |_, _, _| Ok(()))?;
        Ok(())
    }

    /// Appends `tokens` and hands the logits of each position `>= from` to `sink`, in order; positions count from the
    /// start of the sequence.
    ///
    /// # Errors
    /// As [`Session::step`], and the errors of `sink`.
    pub fn step_rows<T: Taps>(
        &mut self,
        tokens: &[u32],
        from: usize,
        taps: &mut T,
        sink: &mut LogitsSink<'_>,
    ) -> Result<()> {
        let vocab = self.model().config().vocab;
        self.run(tokens, (Logits::None, &Interrupt::default()), taps, |step, first, n| {
            let mut row = from.saturating_sub(first).min(n);
            while row < n {
                let end = n.min(row + LOGIT_ROWS);
                for (i, logits) in step.logits_of(row..end).chunks_exact(vocab).enumerate() {
                    sink(first + row + i, logits)?;
                }
                row = end;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// The mean of the final hidden states of `tokens`, which are appended; `[hidden]`.
    ///
    /// # Errors
    /// As [`Session::prefill`].
    pub fn mean_hidden(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let mut mean = MeanHidden { sum: vec![0.0; self.model().config().hidden] };
        self.prefill(tokens, &mut mean)?;
        Ok(mean.sum.iter().map(|sum| (sum / tokens.len() as f64) as f32).collect())
    }

    /// Runs `tokens` chunk by chunk until the interrupt is raised; whether all chunks were run. The last chunk computes the
    /// logits that are asked for. `after` gets the step, the first position and the size of a chunk.
    fn run<T: Taps>(
        &mut self,
        tokens: &[u32],
        (logits, interrupt): (Logits, &Interrupt),
        taps: &mut T,
        mut after: impl FnMut(&mut Step, usize, usize) -> Result<()>,
    ) -> Result<bool> {
        check_tokens(tokens, self.model().config().vocab)?;
        let start = self.len();
        let need = start.saturating_add(tokens.len());
        if need > self.n_ctx() {
            return Err(Error::Session(SessionError::ContextFull { have: self.n_ctx(), need }));
        }
        self.step.set_adapters(self.adapters.current());
        let chunks = tokens.len().div_ceil(self.chunk);
        for (i, tokens) in tokens.chunks(self.chunk).enumerate() {
            let logits = if i + 1 == chunks { logits } else { Logits::None };
            let segment = StepSegment { cache: 0, tokens, logits, interrupt };
            match self.run_chunk(&segment, taps, &mut after) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => {
                    self.cache.truncate(start);
                    return Err(error);
                }
            }
        }
        Ok(true)
    }

    /// Runs one chunk; whether it was not interrupted.
    fn run_chunk<T: Taps>(
        &mut self,
        segment: &StepSegment<'_>,
        taps: &mut T,
        after: &mut impl FnMut(&mut Step, usize, usize) -> Result<()>,
    ) -> Result<bool> {
        let (first, caches) = (self.cache.len(), std::slice::from_mut(&mut self.cache));
        self.step.clear();
        self.step.add(caches, segment)?;
        self.step.run(caches, taps)?;
        if self.step.is_interrupted(0) {
            return Ok(false);
        }
        after(&mut self.step, first, segment.tokens.len())?;
        Ok(true)
    }
}

/// Adds up the final hidden states.
struct MeanHidden {
    /// The sum over the tokens, `[hidden]`.
    sum: Vec<f64>,
}

impl Taps for MeanHidden {
    fn final_hidden(&mut self, _first: usize, x: &[f32]) {
        for row in x.chunks_exact(self.sum.len()) {
            for (sum, &x) in self.sum.iter_mut().zip(row) {
                *sum += f64::from(x);
            }
        }
    }
}
