//! The caches of all layers for one sequence.

use std::sync::Arc;

use super::block::CacheBlock;
use super::cache_type::CacheType;
use super::error::CacheError;
use super::layout::{BLOCK, CacheLayout};
use super::shape::CacheShape;

/// The caches of all layers for one sequence, in blocks of 64 positions.
///
/// A step writes the layers one after the other, so all layers hold the same positions between two steps, and only
/// then. A failed step leaves some layers longer than others: `truncate` to the length before it.
///
/// Blocks may be shared with other sequences and with a store of prompts. A block that is shared is copied before it is
/// written.
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
    layout: Arc<CacheLayout>,
    n_ctx: usize,
    /// Positions that each layer holds.
    lens: Vec<usize>,
    /// The blocks of positions `0 ..`, in order.
    blocks: Vec<Arc<CacheBlock>>,
    /// Blocks for the positions to come, so that a step allocates nothing.
    spare: Vec<Arc<CacheBlock>>,
    /// Codes of one vector, before they are written to their groups.
    staging: Vec<i8>,
}

impl CompressedMlaCache {
    /// Positions in a block.
    pub const BLOCK: usize = BLOCK;

    /// Reserves room for `n_ctx` positions of one layer per shape.
    ///
    /// # Errors
    /// [`CacheError::Memory`] when the memory cannot be reserved, [`CacheError::RowWidth`] when a row would be empty.
    pub fn new(
        shapes: impl IntoIterator<Item = CacheShape>,
        n_ctx: usize,
        ty: CacheType,
    ) -> Result<CompressedMlaCache, CacheError> {
        CompressedMlaCache::with_layout(Arc::new(CacheLayout::new(shapes, ty)?), n_ctx)
    }

    fn with_layout(layout: Arc<CacheLayout>, n_ctx: usize) -> Result<CompressedMlaCache, CacheError> {
        let staging = vec![0; layout.widest_vector()];
        let lens = vec![0; layout.shapes().len()];
        let mut cache = CompressedMlaCache { layout, n_ctx, lens, blocks: Vec::new(), spare: Vec::new(), staging };
        // One request for the whole cache fails at once where many requests for blocks would first use up the memory.
        let all_bytes = cache.layout.block_bytes().saturating_mul(n_ctx.div_ceil(BLOCK));
        Vec::<u8>::new().try_reserve_exact(all_bytes).map_err(|_| cache.no_memory())?;
        cache.reserve()?;
        Ok(cache)
    }

    /// Reserves all blocks up to the end of the context, in place of those that were given away, and gives back what exceeds
    /// them: appending then allocates nothing.
    ///
    /// # Errors
    /// [`CacheError::Memory`].
    pub fn reserve(&mut self) -> Result<(), CacheError> {
        let all = self.n_ctx.div_ceil(BLOCK);
        let missing = all - self.blocks.len();
        // A last block that is shared is copied before it is written.
        let shared = self.blocks.last().is_some_and(|last| self.ends_within_block() && Arc::strong_count(last) > 1);
        let spare = missing + usize::from(shared);
        self.spare.truncate(spare);
        let refused = self.no_memory();
        let list = self.blocks.try_reserve_exact(missing);
        list.and_then(|()| self.spare.try_reserve_exact(all + 1 - self.spare.len())).map_err(|_| refused)?;
        while self.spare.len() < spare {
            let block = CacheBlock::reserved(&self.layout).ok_or_else(|| self.no_memory())?;
            self.spare.push(Arc::new(block));
        }
        Ok(())
    }

    fn ends_within_block(&self) -> bool {
        !self.len().is_multiple_of(BLOCK)
    }

    fn no_memory(&self) -> CacheError {
        let bytes = (self.n_ctx as u128).saturating_mul(self.bytes_per_token() as u128);
        CacheError::Memory { n_ctx: self.n_ctx, bytes }
    }

    /// Positions that every layer holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lens.iter().copied().min().unwrap_or(0)
    }

    /// Whether no position is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions that `layer` holds.
    ///
    /// # Panics
    /// When there is no such layer.
    #[must_use]
    pub fn layer_len(&self, layer: usize) -> usize {
        self.lens[layer]
    }

    /// Positions there is room for.
    #[must_use]
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// The number type of the values.
    #[must_use]
    pub fn cache_type(&self) -> CacheType {
        self.layout.cache_type()
    }

    /// The places of all layers in a block.
    #[must_use]
    pub fn layout(&self) -> &Arc<CacheLayout> {
        &self.layout
    }

    /// Bytes of one position over all layers.
    #[must_use]
    pub fn bytes_per_token(&self) -> usize {
        self.layout.bytes_per_token()
    }

    /// Refuses `n` more positions that do not fit.
    ///
    /// # Errors
    /// [`CacheError::Full`] with the room and the need.
    pub fn check_room(&self, n: usize) -> Result<(), CacheError> {
        check_room(self.len(), n, self.n_ctx)
    }

    /// Appends positions to `layer`: latents `[n, kv_lora]` and rotated keys `[n, qk_rope]`, or keys and values, both
    /// `[n, n_kv_heads, head_dim]`. Values are rounded to the cache's type.
    ///
    /// # Errors
    /// [`CacheError::Full`] when they do not fit, [`CacheError::Memory`] for a block that cannot be had,
    /// [`CacheError::BufferLength`] when the lengths are not those of `n` rows; nothing is appended then.
    ///
    /// # Panics
    /// When there is no such layer.
    pub fn append(&mut self, layer: usize, n: usize, rows: [&[f32]; 2]) -> Result<(), CacheError> {
        let shape = self.layout.part(layer).shape;
        let (names, widths) = match shape {
            CacheShape::Latent { kv_lora, qk_rope } => (["latents", "rotated keys"], [kv_lora, qk_rope]),
            CacheShape::Kv { n_kv_heads, head_dim } => (["keys", "values"], [n_kv_heads * head_dim; 2]),
        };
        for ((name, width), rows) in names.into_iter().zip(widths).zip(rows) {
            if rows.len() != n * width {
                return Err(CacheError::BufferLength { name, expected: n * width, got: rows.len() });
            }
        }
        let first = self.lens[layer];
        check_room(first, n, self.n_ctx)?;
        for i in 0..n {
            let row = [0, 1].map(|part: usize| &rows[part][i * widths[part]..][..widths[part]]);
            let block = (first + i) / BLOCK;
            if i == 0 || (first + i).is_multiple_of(BLOCK) {
                self.own(block)?;
            }
            let block = Arc::get_mut(&mut self.blocks[block]).expect("the block was made this cache's own");
            block.write(layer, (first + i) % BLOCK, row, &mut self.staging);
        }
        self.lens[layer] = first + n;
        Ok(())
    }

    /// Makes block `index` one that this cache alone holds. All blocks before it exist.
    fn own(&mut self, index: usize) -> Result<(), CacheError> {
        let is_new = index == self.blocks.len();
        if !is_new && Arc::get_mut(&mut self.blocks[index]).is_some() {
            return Ok(());
        }
        let mut block = match self.spare.pop() {
            Some(block) => block,
            None => Arc::new(CacheBlock::reserved(&self.layout).ok_or_else(|| self.no_memory())?),
        };
        let values = Arc::get_mut(&mut block).expect("a spare block is not shared");
        values.open();
        if is_new {
            self.blocks.push(block);
        } else {
            values.copy_from(&self.blocks[index]);
            self.blocks[index] = block;
        }
        Ok(())
    }

    /// The positions `64 span .. 64 span + 64`.
    pub(crate) fn block(&self, span: usize) -> &CacheBlock {
        &self.blocks[span]
    }

    /// The blocks that every layer has filled, in order. They do not change any more, and may be shared.
    #[must_use]
    pub fn full_blocks(&self) -> &[Arc<CacheBlock>] {
        &self.blocks[..self.len() / BLOCK]
    }

    /// Replaces everything by the positions of `blocks`, which are shared from now on, and reserves the rest.
    ///
    /// # Errors
    /// [`CacheError::Mismatch`] for a block of another layout, [`CacheError::Full`], [`CacheError::Memory`]; the cache is
    /// then empty.
    pub fn resume(&mut self, blocks: &[Arc<CacheBlock>]) -> Result<(), CacheError> {
        self.reset();
        check_room(0, blocks.len().saturating_mul(BLOCK), self.n_ctx)?;
        if let Some(other) = blocks.iter().find(|block| **block.layout() != *self.layout) {
            let name = |layout: &CacheLayout| format!("{} layers as {}", layout.shapes().len(), layout.cache_type());
            return Err(CacheError::Mismatch { expected: name(&self.layout), got: name(other.layout()) });
        }
        self.blocks.extend_from_slice(blocks);
        self.lens.fill(blocks.len() * BLOCK);
        self.reserve().inspect_err(|_| self.reset())
    }

    /// Drops every position of every layer.
    pub fn reset(&mut self) {
        self.truncate(0);
    }

    /// Drops every position from `len` on, in every layer; a `len` beyond the end changes nothing.
    pub fn truncate(&mut self, len: usize) {
        for held in &mut self.lens {
            *held = len.min(*held);
        }
        let blocks = self.lens.iter().copied().max().unwrap_or(0).div_ceil(BLOCK);
        while self.blocks.len() > blocks {
            let Some(mut block) = self.blocks.pop() else { break };
            if Arc::get_mut(&mut block).is_some() && self.spare.len() < self.spare.capacity() {
                self.spare.push(block);
            }
        }
    }

    /// A cache with the same content and room. Blocks are shared, so nothing is copied until one of the two writes into a
    /// block that the other holds.
    ///
    /// # Errors
    /// [`CacheError::Memory`] when the memory for the rest of the context cannot be reserved.
    pub fn fork(&self) -> Result<CompressedMlaCache, CacheError> {
        let mut fork = CompressedMlaCache {
            layout: self.layout.clone(),
            n_ctx: self.n_ctx,
            lens: self.lens.clone(),
            blocks: self.blocks.clone(),
            spare: Vec::new(),
            staging: vec![0; self.staging.len()],
        };
        fork.reserve()?;
        Ok(fork)
    }
}

/// Refuses `n` more rows than `len` that exceed `capacity`.
fn check_room(len: usize, n: usize, capacity: usize) -> Result<(), CacheError> {
    let need = len.saturating_add(n);
    if need > capacity {
        return Err(CacheError::Full { have: capacity, need });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: CacheShape = CacheShape::Latent { kv_lora: 3, qk_rope: 1 };

    fn fill(cache: &mut CompressedMlaCache, positions: std::ops::Range<usize>) {
        let layers = cache.lens.len();
        for layer in 0..layers {
            for position in positions.clone() {
                cache.append(layer, 1, [&[position as f32; 3], &[layer as f32]]).expect("room");
            }
        }
    }

    fn first_value(cache: &CompressedMlaCache, layer: usize, position: usize) -> f32 {
        cache.block(position / BLOCK).float_rows::<f32>(layer)[0][position % BLOCK * 4]
    }

    #[test]
    fn a_fork_shares_blocks_until_it_writes() {
        let mut cache = CompressedMlaCache::new([SHAPE; 2], 200, CacheType::F32).expect("a small cache");
        fill(&mut cache, 0..100);
        let mut fork = cache.fork().expect("a small cache");
        assert!(cache.blocks.iter().zip(&fork.blocks).all(|(a, b)| Arc::ptr_eq(a, b)));
        for layer in 0..2 {
            fork.append(layer, 1, [&[7.0; 3], &[0.0]]).expect("room");
        }
        fill(&mut cache, 100..130);
        assert!(Arc::ptr_eq(&cache.blocks[0], &fork.blocks[0]), "full blocks stay shared");
        for layer in 0..2 {
            assert_eq!([99, 100].map(|p| first_value(&fork, layer, p)), [99.0, 7.0]);
            assert_eq!([99, 100, 129].map(|p| first_value(&cache, layer, p)), [99.0, 100.0, 129.0]);
        }
    }

    #[test]
    fn blocks_that_are_dropped_come_back_as_spare_ones_unless_they_are_shared() {
        let mut cache = CompressedMlaCache::new([SHAPE], 200, CacheType::F32).expect("a small cache");
        assert_eq!((cache.blocks.len(), cache.spare.len()), (0, 4));
        fill(&mut cache, 0..200);
        assert_eq!((cache.blocks.len(), cache.spare.len()), (4, 0));
        let kept = cache.full_blocks().to_vec();
        assert_eq!(kept.len(), 3);
        cache.reset();
        assert_eq!((cache.blocks.len(), cache.spare.len()), (0, 1), "three blocks belong to the other holder");
        cache.resume(&kept[..2]).expect("room");
        assert_eq!((cache.len(), cache.blocks.len(), cache.spare.len()), (128, 2, 2));
        fill(&mut cache, 128..130);
        assert_eq!([0, 127, 129].map(|p| first_value(&cache, 0, p)), [0.0, 127.0, 129.0]);
        cache.truncate(100);
        fill(&mut cache, 100..101);
        assert!(!Arc::ptr_eq(&cache.blocks[1], &kept[1]), "a shared block is copied before it is written");
    }

    #[test]
    fn a_resumed_cache_holds_no_more_blocks_than_its_context_has() {
        let mut cache = CompressedMlaCache::new([SHAPE], 200, CacheType::F32).expect("a small cache");
        fill(&mut cache, 0..200);
        let kept = cache.fork().expect("a small cache").full_blocks().to_vec();
        let mut other = CompressedMlaCache::new([SHAPE], 200, CacheType::F32).expect("a small cache");
        fill(&mut other, 0..200);
        other.resume(&kept).expect("room");
        assert_eq!((other.blocks.len(), other.spare.len()), (3, 1), "the blocks of the sequence before are given back");
        // Room for a copy of the last block while it is shared; none once it is not.
        fill(&mut other, 192..193);
        let fork = other.fork().expect("a small cache");
        other.reserve().expect("memory");
        assert_eq!((other.blocks.len(), other.spare.len()), (4, 1));
        drop(fork);
        other.reserve().expect("memory");
        assert_eq!((other.blocks.len(), other.spare.len()), (4, 0));
    }

    #[test]
    fn blocks_of_another_layout_are_refused() {
        let mut cache = CompressedMlaCache::new([SHAPE], 64, CacheType::F32).expect("a small cache");
        fill(&mut cache, 0..64);
        let mut other = CompressedMlaCache::new([SHAPE], 64, CacheType::F16).expect("a small cache");
        assert!(matches!(other.resume(cache.full_blocks()), Err(CacheError::Mismatch { .. })));
        let mut short = CompressedMlaCache::new([SHAPE], 63, CacheType::F32).expect("a small cache");
        assert!(matches!(short.resume(cache.full_blocks()), Err(CacheError::Full { have: 63, need: 64 })));
        assert!(other.is_empty() && short.is_empty());
    }

    #[test]
    fn rows_of_another_length_are_refused() {
        let mut cache = CompressedMlaCache::new([SHAPE], 64, CacheType::F32).expect("a small cache");
        let error = cache.append(0, 2, [&[0.0; 6], &[0.0]]).expect_err("one rotated key is missing");
        assert!(matches!(error, CacheError::BufferLength { name: "rotated keys", expected: 2, got: 1 }), "{error}");
        assert!(cache.is_empty());
    }

    #[test]
    fn an_absurd_capacity_is_an_error_with_the_number_of_bytes() {
        let shape = CacheShape::Kv { n_kv_heads: usize::MAX / 4, head_dim: 1 };
        let error = CompressedMlaCache::new([shape], 1, CacheType::F16).expect_err("too large");
        assert!(error.to_string().contains("too many"), "{error}");
        let error = CompressedMlaCache::new([SHAPE], usize::MAX / 2, CacheType::I8).expect_err("too large");
        assert!(error.to_string().contains("bytes, which cannot be allocated"), "{error}");
    }
}
