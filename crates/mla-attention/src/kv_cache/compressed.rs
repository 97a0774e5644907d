//! The caches of all layers of a model.

use super::cache_type::CacheType;
use super::error::CacheError;
use super::layer::LayerCache;
use super::shape::CacheShape;

/// The caches of all layers of a model, with one length.
///
/// A step writes the layers one after the other, so all layers hold the same positions between two steps, and only
/// then. A failed step leaves some layers longer than others: `truncate` to the length before it.
///
/// ```
/// use mla_attention::{CacheShape, CacheType, CompressedMlaCache};
///
/// let shape = CacheShape::Latent { kv_lora: 512, qk_rope: 64 };
/// let cache = CompressedMlaCache::new(vec![shape; 47], 16, CacheType::F16)?;
/// assert_eq!(cache.bytes_per_token(), 54_144);
/// assert_eq!((cache.len(), cache.n_ctx()), (0, 16));
/// # Ok::<(), mla_attention::CacheError>(())
/// ```
#[derive(Debug)]
pub struct CompressedMlaCache {
    n_ctx: usize,
    layers: Vec<LayerCache>,
}

impl CompressedMlaCache {
    /// Reserves room for `n_ctx` positions in one cache per shape.
    ///
    /// # Errors
    /// As [`LayerCache::new`].
    pub fn new(
        shapes: impl IntoIterator<Item = CacheShape>,
        n_ctx: usize,
        ty: CacheType,
    ) -> Result<CompressedMlaCache, CacheError> {
        let layers = shapes.into_iter().map(|shape| LayerCache::new(shape, n_ctx, ty));
        Ok(CompressedMlaCache { n_ctx, layers: layers.collect::<Result<_, _>>()? })
    }

    /// Positions that every layer holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layers.iter().map(LayerCache::len).min().unwrap_or(0)
    }

    /// Whether no position is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions there is room for.
    #[must_use]
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// The layers, first to last.
    #[must_use]
    pub fn layers(&self) -> &[LayerCache] {
        &self.layers
    }

    /// The layers, first to last, to be appended to.
    pub fn layers_mut(&mut self) -> &mut [LayerCache] {
        &mut self.layers
    }

    /// Bytes of one position over all layers.
    #[must_use]
    pub fn bytes_per_token(&self) -> usize {
        self.layers.iter().map(LayerCache::bytes_per_token).sum()
    }

    /// Refuses `n` more positions that do not fit.
    ///
    /// # Errors
    /// [`CacheError::Full`] with the room and the need.
    pub fn check_room(&self, n: usize) -> Result<(), CacheError> {
        let need = self.len().saturating_add(n);
        if need > self.n_ctx {
            return Err(CacheError::Full { have: self.n_ctx, need });
        }
        Ok(())
    }

    /// Drops every position of every layer.
    pub fn reset(&mut self) {
        self.truncate(0);
    }

    /// Drops every position from `len` on, in every layer.
    pub fn truncate(&mut self, len: usize) {
        for layer in &mut self.layers {
            layer.truncate(len);
        }
    }

    /// An independent copy with the same room.
    ///
    /// # Errors
    /// [`CacheError::Memory`] when the memory cannot be reserved.
    pub fn fork(&self) -> Result<CompressedMlaCache, CacheError> {
        let layers = self.layers.iter().map(LayerCache::fork);
        Ok(CompressedMlaCache { n_ctx: self.n_ctx, layers: layers.collect::<Result<_, _>>()? })
    }
}
