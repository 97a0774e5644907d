//! The caches of a batch's sequences at one layer, for reading.

use crate::kv_cache::{CacheBlock, CacheType, CompressedMlaCache};

/// The caches of a batch's sequences at one layer, all of one layout.
#[derive(Clone, Copy)]
pub(crate) struct LayerCaches<'a> {
    caches: &'a [CompressedMlaCache],
    layer: usize,
}

impl<'a> LayerCaches<'a> {
    /// Layer `layer` of `caches`, of which there is at least one.
    pub(crate) fn new(caches: &'a [CompressedMlaCache], layer: usize) -> LayerCaches<'a> {
        LayerCaches { caches, layer }
    }

    pub(crate) fn layer(&self) -> usize {
        self.layer
    }

    pub(crate) fn cache_type(&self) -> CacheType {
        self.caches[0].cache_type()
    }

    /// The positions `64 span .. 64 span + 64` of sequence `cache`.
    pub(super) fn block(&self, cache: usize, span: usize) -> &'a CacheBlock {
        self.caches[cache].block(span)
    }
}
