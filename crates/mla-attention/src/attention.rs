//! One attention layer of either kind, behind one `forward`.

use tl_kernels::{Linear, Pool};

use crate::cache::check_shape;
use crate::gqa::GqaScratch;
use crate::mla::MlaScratch;
use crate::{CacheShape, CacheType, Error, GqaAttention, LayerCache, MlaAttention};

/// The attention of one layer.
#[derive(Debug)]
pub enum Attention {
    /// Multi-head latent attention: GLM-4.7-Flash, DeepSeek-V2.
    Mla(MlaAttention),
    /// Grouped-query attention: GLM-4.5 and its kin.
    Gqa(GqaAttention),
}

/// Buffers of [`Attention::forward`], reused by every layer and step.
///
/// They grow to the largest batch seen; once they have grown, a forward pass allocates nothing.
#[derive(Debug, Default)]
pub struct AttentionScratch {
    mla: MlaScratch,
    gqa: GqaScratch,
}

impl AttentionScratch {
    /// Empty buffers.
    #[must_use]
    pub fn new() -> AttentionScratch {
        AttentionScratch::default()
    }
}

impl Attention {
    /// Width of the residual stream.
    #[must_use]
    pub fn hidden(&self) -> usize {
        match self {
            Attention::Mla(mla) => mla.config().hidden,
            Attention::Gqa(gqa) => gqa.config().hidden,
        }
    }

    /// All matrices, to lay their weights out anew.
    pub fn linears_mut(&mut self) -> Vec<&mut Linear> {
        match self {
            Attention::Mla(mla) => mla.linears_mut(),
            Attention::Gqa(gqa) => gqa.linears_mut(),
        }
    }

    /// What the layer stores per position.
    #[must_use]
    pub fn cache_shape(&self) -> CacheShape {
        match self {
            Attention::Mla(mla) => mla.cache_shape(),
            Attention::Gqa(gqa) => gqa.cache_shape(),
        }
    }

    /// A cache for this layer with room for `n_ctx` positions.
    ///
    /// # Errors
    /// [`Error::CacheMemory`] when the memory cannot be had.
    pub fn new_cache(&self, n_ctx: usize, ty: CacheType) -> Result<LayerCache, Error> {
        LayerCache::new(self.cache_shape(), n_ctx, ty)
    }

    /// Attends from `n` tokens at positions `cache.len() .. cache.len() + n` to all positions up
    /// to their own, and appends theirs to the cache.
    ///
    /// `x` `[n, hidden]` is already normed; `out` `[n, hidden]` is overwritten (the residual is
    /// the caller's). The bits of a token's row depend neither on how many tokens share the call
    /// nor on the pool.
    ///
    /// # Errors
    /// [`Error::ContextFull`], [`Error::BufferLength`] or [`Error::CacheMismatch`]; the cache is
    /// as before then.
    pub fn forward(
        &self,
        pool: &Pool,
        x: &[f32],
        n: usize,
        cache: &mut LayerCache,
        scratch: &mut AttentionScratch,
        out: &mut [f32],
    ) -> Result<(), Error> {
        match (self, cache) {
            (Attention::Mla(mla), LayerCache::Latent(cache)) => mla.forward(pool, x, n, cache, &mut scratch.mla, out),
            (Attention::Gqa(gqa), LayerCache::Kv(cache)) => gqa.forward(pool, x, n, cache, &mut scratch.gqa, out),
            (_, cache) => check_shape(self.cache_shape(), cache.shape()),
        }
    }
}

/// Refuses buffers that do not hold `n` rows of `width` values.
pub(crate) fn check_rows(name: &'static str, len: usize, n: usize, width: usize) -> Result<(), Error> {
    let expected = n.saturating_mul(width);
    if len == expected {
        return Ok(());
    }
    Err(Error::BufferLength { name, expected, got: len })
}

/// The first `len` values of a buffer that grows when it must and never shrinks.
pub(crate) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
