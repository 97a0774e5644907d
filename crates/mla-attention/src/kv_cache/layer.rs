//! The cache of one layer, of either kind.

use super::cache_type::CacheType;
use super::error::CacheError;
use super::key_value::KvCache;
use super::latent::LatentCache;
use super::shape::CacheShape;

/// The cache of one layer, of either kind.
#[derive(Debug)]
pub enum LayerCache {
    /// The cache of multi-head latent attention: one row per position.
    Latent(LatentCache),
    /// The cache of grouped-query attention: a row of keys and a row of values per position.
    Kv(KvCache),
}

/// Evaluates the same expression for either kind of cache.
macro_rules! of_kind {
    ($layer:expr, $cache:ident => $body:expr) => {
        match $layer {
            LayerCache::Latent($cache) => $body,
            LayerCache::Kv($cache) => $body,
        }
    };
}

impl LayerCache {
    /// Reserves room for `n_ctx` positions of `shape`.
    ///
    /// # Errors
    /// [`CacheError::Memory`] when the memory cannot be reserved, [`CacheError::RowWidth`] when a row would be empty,
    /// [`CacheError::Type`] for [`CacheType::I8`] with grouped-query attention.
    pub fn new(shape: CacheShape, n_ctx: usize, ty: CacheType) -> Result<LayerCache, CacheError> {
        Ok(match shape {
            CacheShape::Latent { kv_lora, qk_rope } => {
                LayerCache::Latent(LatentCache::new(n_ctx, kv_lora, qk_rope, ty)?)
            }
            CacheShape::Kv { n_kv_heads, head_dim } => LayerCache::Kv(KvCache::new(n_ctx, n_kv_heads, head_dim, ty)?),
        })
    }

    /// How many positions are held.
    #[must_use]
    pub fn len(&self) -> usize {
        of_kind!(self, cache => cache.len())
    }

    /// Whether no position is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions there is room for.
    #[must_use]
    pub fn n_ctx(&self) -> usize {
        of_kind!(self, cache => cache.n_ctx())
    }

    /// The number type of the values.
    #[must_use]
    pub fn cache_type(&self) -> CacheType {
        of_kind!(self, cache => cache.cache_type())
    }

    /// Refuses `n` more positions that do not fit.
    pub(crate) fn check_room(&self, n: usize) -> Result<(), CacheError> {
        of_kind!(self, cache => cache.check_room(n))
    }

    /// The shape of the cache: the values stored per position.
    #[must_use]
    pub fn shape(&self) -> CacheShape {
        of_kind!(self, cache => cache.shape())
    }

    /// Bytes of one position.
    #[must_use]
    pub fn bytes_per_token(&self) -> usize {
        self.shape().bytes_per_token(self.cache_type())
    }

    /// Drops every position that is held.
    pub fn reset(&mut self) {
        self.truncate(0);
    }

    /// Drops every position from `len` on; a `len` beyond the end changes nothing.
    pub fn truncate(&mut self, len: usize) {
        of_kind!(self, cache => cache.truncate(len));
    }

    /// An independent copy with the same room.
    ///
    /// # Errors
    /// [`CacheError::Memory`] when the memory cannot be reserved.
    pub fn fork(&self) -> Result<LayerCache, CacheError> {
        Ok(match self {
            LayerCache::Latent(cache) => LayerCache::Latent(cache.fork()?),
            LayerCache::Kv(cache) => LayerCache::Kv(cache.fork()?),
        })
    }
}
