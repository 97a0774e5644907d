//! A sequence of tokens and what the model remembers of it.
//!
//! A prompt runs in chunks, a generated token alone; both give the same bits, so a session may be fed in any way, cut
//! back with [`Session::truncate`] and continued.
//!
//! **Invariant:** after an error the session holds exactly the tokens it held before the call.

use std::sync::Arc;

use mla_attention::{CacheType, CompressedMlaCache};
use tl_kernels::ActivationBuffer;

use crate::error::{Error, Result};
use crate::forward::layer::{Batch, LayerScratch, norm_rows};
use crate::forward::model::CraftsmanModel;
use crate::forward::taps::Taps;

/// Tokens per batch of a prompt: with four experts of 64 per token, sixteen tokens share an expert's weights.
pub const DEFAULT_CHUNK: usize = 256;
/// Rows of logits that are computed at once.
pub(crate) const LOGIT_ROWS: usize = 16;

/// Receives the logits `[vocab]` of one position.
pub type LogitsSink<'a> = dyn FnMut(usize, &[f32]) -> Result<()> + 'a;

/// One sequence over a shared model.
#[derive(Debug)]
pub struct Session {
    model: Arc<CraftsmanModel>,
    cache: CompressedMlaCache,
    scratch: Scratch,
    chunk: usize,
}

/// The buffers of a step. They grow to the largest batch seen; then a step allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// `[n, hidden]`: the residual stream.
    x: Vec<f32>,
    /// `[n, hidden]`: after the final norm.
    hidden: Vec<f32>,
    layer: LayerScratch,
    acts: ActivationBuffer,
    /// `[rows, vocab]`.
    logits: Vec<f32>,
}

impl Session {
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
        Ok(Session { model, cache, scratch: Scratch::default(), chunk: DEFAULT_CHUNK })
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
            scratch: Scratch::default(),
            chunk: self.chunk,
        })
    }

    /// Appends `tokens` and returns the logits `[vocab]` that follow the last one.
    ///
    /// # Errors
    /// [`Error::NoTokens`], [`Error::Token`], [`Error::ContextFull`] with both numbers, or what a layer refuses.
    pub fn step<T: Taps>(&mut self, tokens: &[u32], taps: &mut T) -> Result<&[f32]> {
        self.run(tokens, taps, |model, scratch, _, n| {
            scratch.compute_logits(model, n - 1, n);
            Ok(())
        })?;
        Ok(&self.scratch.logits)
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
                scratch.compute_logits(model, row, end);
                for (i, logits) in scratch.logits.chunks_exact(model.config().vocab).enumerate() {
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
        mut after: impl FnMut(&CraftsmanModel, &mut Scratch, usize, usize) -> Result<()>,
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
                .scratch
                .forward(&self.model, chunk, &mut self.cache, taps)
                .and_then(|()| after(&self.model, &mut self.scratch, first, chunk.len()));
            if let Err(error) = done {
                self.cache.truncate(start);
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Scratch {
    /// Moves one batch through all layers and the final norm.
    fn forward<T: Taps>(
        &mut self,
        model: &CraftsmanModel,
        tokens: &[u32],
        cache: &mut CompressedMlaCache,
        taps: &mut T,
    ) -> Result<()> {
        let (config, pool) = (model.config(), &**model.pool());
        let first = cache.len();
        self.x.resize(tokens.len() * config.hidden, 0.0);
        self.hidden.resize(self.x.len(), 0.0);
        for (&token, row) in tokens.iter().zip(self.x.chunks_exact_mut(config.hidden)) {
            model.embedding().dequantize_row(token as usize, row)?;
        }
        for (layer, cache) in model.layers().iter().zip(cache.layers_mut()) {
            let batch = Batch { pool, x: &mut self.x, scratch: &mut self.layer };
            layer.forward(batch, cache, taps)?;
        }
        norm_rows(pool, &self.x, model.final_norm(), config.norm_eps, &mut self.hidden);
        taps.final_hidden(first, &self.hidden);
        Ok(())
    }

    /// Computes the logits of rows `start..end` of the last batch.
    fn compute_logits(&mut self, model: &CraftsmanModel, start: usize, end: usize) {
        let width = model.config().hidden;
        let rows = end - start;
        self.acts.set(&self.hidden[start * width..end * width], rows, width);
        let head = model.head();
        self.acts.quantize(head.act_mode());
        self.logits.resize(rows * model.config().vocab, 0.0);
        head.forward(model.pool(), &self.acts, &mut self.logits);
    }
}
