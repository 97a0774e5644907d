//! A sequence of tokens and what the model remembers of it.
//!
//! A prompt runs in chunks, a generated token alone; both give the same bits, so a session may be fed in any way, cut
//! back with [`Session::truncate`] and continued.
//!
//! **Invariant:** after an error the session holds exactly the tokens it held before the call.

use std::sync::Arc;

use mla_attention::{CacheType, CompressedMlaCache};

use crate::error::{Error, Result};
use crate::forward::model::{CraftsmanModel, ForwardScratch, LOGIT_ROWS};
use crate::forward::taps::Taps;

/// Receives the logits `[vocab]` of one position.
pub type LogitsSink<'a> = dyn FnMut(usize, &[f32]) -> Result<()> + 'a;

/// One sequence over a shared model.
#[derive(Debug)]
pub struct Session {
    model: Arc<CraftsmanModel>,
    cache: CompressedMlaCache,
    scratch: ForwardScratch,
    chunk: usize,
}

impl Session {
    /// Tokens per batch of a prompt: with four experts of 64 per token, sixteen tokens share an expert's weights.
    pub const DEFAULT_CHUNK: usize = 256;

    /// An empty sequence with room for `n_ctx` tokens.
    ///
    /// # Errors
    /// [`Error::ContextTooLong`] beyond the model's own limit, and memory that cannot be had.
    pub fn new(model: Arc<CraftsmanModel>, n_ctx: usize, ty: CacheType) -> Result<Session> {
        let made_for = model.config().n_ctx;
        if n_ctx > made_for {
            return Err(Error::ContextTooLong { asked: n_ctx, made_for });
        }
        let cache = CompressedMlaCache::new(model.cache_shapes(), n_ctx, ty)?;
        Ok(Session { model, cache, scratch: ForwardScratch::default(), chunk: Session::DEFAULT_CHUNK })
    }

    /// The same session with prompts cut into batches of `chunk` tokens (at least 1). Results do not depend on it.
    #[must_use]
    pub fn with_chunk(mut self, chunk: usize) -> Session {
        self.chunk = chunk.max(1);
        self
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Arc<CraftsmanModel> {
        &self.model
    }

    /// Tokens held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether no token is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// Tokens that fit.
    #[must_use]
    pub fn n_ctx(&self) -> usize {
        self.cache.n_ctx()
    }

    /// What is remembered of the tokens.
    #[must_use]
    pub fn cache(&self) -> &CompressedMlaCache {
        &self.cache
    }

    /// Forgets all tokens.
    pub fn reset(&mut self) {
        self.cache.reset();
    }

    /// Forgets the tokens from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.cache.truncate(len);
    }

    /// A second session that continues from here on its own.
    ///
    /// # Errors
    /// Memory for the second cache that cannot be had.
    pub fn fork(&self) -> Result<Session> {
        Ok(Session {
            model: self.model.clone(),
            cache: self.cache.fork()?,
            scratch: ForwardScratch::default(),
            chunk: self.chunk,
        })
    }

    /// Appends `tokens` and returns the logits `[vocab]` that follow the last one.
    ///
    /// # Errors
    /// [`Error::NoTokens`], [`Error::Token`], [`Error::ContextFull`] with both numbers, or what a layer refuses.
    pub fn step<T: Taps>(&mut self, tokens: &[u32], taps: &mut T) -> Result<&[f32]> {
        self.run(tokens, taps, |model, scratch, _, n| {
            model.compute_logits(n - 1..n, scratch);
            Ok(())
        })?;
        Ok(self.scratch.logits())
    }

    /// Appends `tokens` without computing logits.
    ///
    /// # Errors
    /// As [`Session::step`].
    pub fn prefill<T: Taps>(&mut self, tokens: &[u32], taps: &mut T) -> Result<()> {
        self.run(tokens, taps, |_, _, _, _| Ok(()))
    }

    /// Appends `tokens` and hands the logits of each position `>= from` to `sink`, in order; positions count from the
    /// start of the sequence.
    ///
    /// # Errors
    /// As [`Session::step`], and what `sink` returns.
    pub fn step_rows<T: Taps>(
        &mut self,
        tokens: &[u32],
        from: usize,
        taps: &mut T,
        sink: &mut LogitsSink<'_>,
    ) -> Result<()> {
        self.run(tokens, taps, |model, scratch, first, n| {
            let mut row = from.saturating_sub(first).min(n);
            while row < n {
                let end = n.min(row + LOGIT_ROWS);
                model.compute_logits(row..end, scratch);
                for (i, logits) in scratch.logits().chunks_exact(model.config().vocab).enumerate() {
                    sink(first + row + i, logits)?;
                }
                row = end;
            }
            Ok(())
        })
    }

    /// Runs `tokens` chunk by chunk; `after` gets the model, the buffers, the first position and the size of a chunk.
    fn run<T: Taps>(
        &mut self,
        tokens: &[u32],
        taps: &mut T,
        mut after: impl FnMut(&CraftsmanModel, &mut ForwardScratch, usize, usize) -> Result<()>,
    ) -> Result<()> {
        let vocab = self.model.config().vocab;
        if tokens.is_empty() {
            return Err(Error::NoTokens);
        }
        if let Some(&token) = tokens.iter().find(|&&t| usize::try_from(t).is_ok_and(|t| t >= vocab)) {
            return Err(Error::Token { token, vocab });
        }
        let start = self.len();
        let need = start.saturating_add(tokens.len());
        if need > self.n_ctx() {
            return Err(Error::ContextFull { have: self.n_ctx(), need });
        }
        for chunk in tokens.chunks(self.chunk) {
            let first = self.cache.len();
            let done = self
                .model
                .forward(chunk, &mut self.cache, &mut self.scratch, taps)
                .and_then(|()| after(&self.model, &mut self.scratch, first, chunk.len()));
            if let Err(error) = done {
                self.cache.truncate(start);
                return Err(error);
            }
        }
        Ok(())
    }
}
