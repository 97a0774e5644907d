//! 64 positions of all layers.
//!
//! **Invariant**: the memory of a block is reserved when it is made and never moves. (Reserved memory costs no RAM until
//! it is written.) Behind the last position that was written stand arbitrary values, which attention never reads as
//! scores and weighs with 0.

use std::fmt;
use std::sync::Arc;

use half::f16;
use ternary_core::quantize_a8;
use tl_kernels::int8::Group;
use tl_kernels::rows::Value;

use super::cache_type::CacheType;
use super::layout::{BLOCK, CacheLayout};
use super::shape::CacheShape;

/// 64 positions of all layers. Blocks that are full are shared and never change.
pub struct CacheBlock {
    layout: Arc<CacheLayout>,
    rows: BlockRows,
}

/// The arrays of a block.
pub(crate) enum BlockRows {
    F32(Vec<f32>),
    F16(Vec<f16>),
    I8(Int8Rows),
}

/// The arrays of an INT8 block.
pub(crate) struct Int8Rows {
    codes: Vec<Group<[i8; 4]>>,
    scales: Vec<Group<f32>>,
    floats: Vec<Group<f16>>,
}

/// One vector of 64 positions as INT8.
#[derive(Clone, Copy)]
pub(crate) struct CodedVector<'a> {
    /// One group per four columns.
    pub(crate) codes: &'a [Group<[i8; 4]>],
    pub(crate) scales: &'a Group<f32>,
}

/// A number type of attention without rounding of queries.
pub(crate) trait CachedFloat: Value {
    /// The values of a block of this type.
    fn values(rows: &BlockRows) -> &[Self]
    where
        Self: Sized;
}

impl CachedFloat for f32 {
    fn values(rows: &BlockRows) -> &[f32] {
        match rows {
            BlockRows::F32(values) => values,
            _ => unreachable!("attention has checked the type of the cache"),
        }
    }
}

impl CachedFloat for f16 {
    fn values(rows: &BlockRows) -> &[f16] {
        match rows {
            BlockRows::F16(values) => values,
            _ => unreachable!("attention has checked the type of the cache"),
        }
    }
}

impl fmt::Debug for CacheBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBlock").field("type", &self.layout.cache_type()).finish_non_exhaustive()
    }
}

impl CacheBlock {
    /// A block with memory for all its values, none of which exists yet; `None` when there is no memory.
    pub(super) fn reserved(layout: &Arc<CacheLayout>) -> Option<CacheBlock> {
        let end = layout.end();
        let rows = match layout.cache_type() {
            CacheType::F32 => BlockRows::F32(reserved(end.values)?),
            CacheType::F16 => BlockRows::F16(reserved(end.values)?),
            CacheType::I8 => BlockRows::I8(Int8Rows {
                codes: reserved(end.codes)?,
                scales: reserved(end.scales)?,
                floats: reserved(end.floats)?,
            }),
        };
        Some(CacheBlock { layout: layout.clone(), rows })
    }

    /// Gives the block its values: zeros in a new block, what it held before in a used one. Allocates nothing.
    pub(super) fn open(&mut self) {
        let end = self.layout.end();
        match &mut self.rows {
            BlockRows::F32(values) => values.resize(end.values, 0.0),
            BlockRows::F16(values) => values.resize(end.values, f16::ZERO),
            BlockRows::I8(rows) => {
                rows.codes.resize(end.codes, Group([[0; 4]; BLOCK]));
                rows.scales.resize(end.scales, Group([0.0; BLOCK]));
                rows.floats.resize(end.floats, Group([f16::ZERO; BLOCK]));
            }
        }
    }

    /// Takes the values of `from`, a block of the same layout. Both are open.
    pub(super) fn copy_from(&mut self, from: &CacheBlock) {
        match (&mut self.rows, &from.rows) {
            (BlockRows::F32(to), BlockRows::F32(from)) => to.copy_from_slice(from),
            (BlockRows::F16(to), BlockRows::F16(from)) => to.copy_from_slice(from),
            (BlockRows::I8(to), BlockRows::I8(from)) => {
                to.codes.copy_from_slice(&from.codes);
                to.scales.copy_from_slice(&from.scales);
                to.floats.copy_from_slice(&from.floats);
            }
            _ => unreachable!("blocks of one layout have one type"),
        }
    }

    /// Writes position `at` of the block in `layer`: the latent and the rotated key, or keys and values. `staging` has room
    /// for the codes of a vector.
    pub(super) fn write(&mut self, layer: usize, at: usize, row: [&[f32]; 2], staging: &mut [i8]) {
        let part = self.layout.part(layer);
        match &mut self.rows {
            BlockRows::F32(values) => {
                let places = places(part.shape, part.start.values, at, row);
                for (place, row) in places.into_iter().zip(row) {
                    values[place..][..row.len()].copy_from_slice(row);
                }
            }
            BlockRows::F16(values) => {
                let places = places(part.shape, part.start.values, at, row);
                for (place, row) in places.into_iter().zip(row) {
                    for (to, &from) in values[place..][..row.len()].iter_mut().zip(row) {
                        *to = saturating_f16(from);
                    }
                }
            }
            BlockRows::I8(rows) => {
                let coded = part.shape.coded();
                let quads = coded.width.div_ceil(4);
                let (vectors, floats) = match part.shape {
                    CacheShape::Latent { .. } => ([row[0], &[]], row[1]),
                    CacheShape::Kv { .. } => (row, &[][..]),
                };
                let codes = rows.codes[part.start.codes..].chunks_exact_mut(quads.max(1));
                let scales = &mut rows.scales[part.start.scales..];
                let vectors = vectors.into_iter().flat_map(|v| v.chunks_exact(coded.width.max(1)));
                for ((vector, codes), scale) in vectors.zip(codes).zip(scales) {
                    let staging = &mut staging[..vector.len()];
                    scale.0[at] = quantize_a8(vector, staging);
                    for (group, quad) in codes.iter_mut().zip(staging.chunks(4)) {
                        group.0[at][..quad.len()].copy_from_slice(quad);
                    }
                }
                for (group, &value) in rows.floats[part.start.floats..].iter_mut().zip(floats) {
                    group.0[at] = saturating_f16(value);
                }
            }
        }
    }

    /// Keys and values of `layer`, each `[64, width]`; of latents, both are the rows.
    pub(crate) fn float_rows<T: CachedFloat>(&self, layer: usize) -> [&[T]; 2] {
        let part = self.layout.part(layer);
        let values = &T::values(&self.rows)[part.start.values..];
        match part.shape {
            CacheShape::Latent { kv_lora, qk_rope } => [&values[..BLOCK * (kv_lora + qk_rope)]; 2],
            CacheShape::Kv { n_kv_heads, head_dim } => {
                let (keys, values) = values.split_at(BLOCK * n_kv_heads * head_dim);
                [keys, &values[..keys.len()]]
            }
        }
    }

    /// Vector `vector` of `layer` in an INT8 block.
    pub(crate) fn coded_vector(&self, layer: usize, vector: usize) -> CodedVector<'_> {
        let (part, rows) = (self.layout.part(layer), self.int8());
        let quads = part.shape.coded().width.div_ceil(4);
        CodedVector {
            codes: &rows.codes[part.start.codes + vector * quads..][..quads],
            scales: &rows.scales[part.start.scales + vector],
        }
    }

    /// The F16 values of `layer` beside its codes, one group per column.
    pub(crate) fn coded_floats(&self, layer: usize) -> &[Group<f16>] {
        let part = self.layout.part(layer);
        &self.int8().floats[part.start.floats..][..part.shape.coded().floats]
    }

    fn int8(&self) -> &Int8Rows {
        match &self.rows {
            BlockRows::I8(rows) => rows,
            _ => unreachable!("attention has checked the type of the cache"),
        }
    }

    /// The layout that the block was made for.
    #[must_use]
    pub fn layout(&self) -> &Arc<CacheLayout> {
        &self.layout
    }

    /// Bytes that the block takes in memory and in a file.
    #[must_use]
    pub fn n_bytes(&self) -> usize {
        self.layout.block_bytes()
    }

    /// Appends all values to `out` as little-endian bytes.
    pub fn write_bytes(&self, out: &mut Vec<u8>) {
        out.reserve(self.n_bytes());
        match &self.rows {
            BlockRows::F32(values) => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
            BlockRows::F16(values) => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
            BlockRows::I8(rows) => {
                out.extend(rows.codes.iter().flat_map(|g| g.0.as_flattened()).map(|v| v.cast_unsigned()));
                out.extend(rows.scales.iter().flat_map(|g| g.0).flat_map(f32::to_le_bytes));
                out.extend(rows.floats.iter().flat_map(|g| g.0).flat_map(f16::to_le_bytes));
            }
        }
    }

    /// The block that [`CacheBlock::write_bytes`] wrote; `None` when the length is another one, or there is no memory.
    #[must_use]
    pub fn from_bytes(layout: &Arc<CacheLayout>, bytes: &[u8]) -> Option<CacheBlock> {
        if bytes.len() != layout.block_bytes() {
            return None;
        }
        let mut block = CacheBlock::reserved(layout)?;
        block.open();
        match &mut block.rows {
            BlockRows::F32(values) => {
                values.iter_mut().zip(bytes.as_chunks().0).for_each(|(v, b)| *v = f32::from_le_bytes(*b));
            }
            BlockRows::F16(values) => {
                values.iter_mut().zip(bytes.as_chunks().0).for_each(|(v, b)| *v = f16::from_le_bytes(*b));
            }
            BlockRows::I8(rows) => {
                let (codes, rest) = bytes.split_at(rows.codes.len() * 4 * BLOCK);
                let (scales, floats) = rest.split_at(rows.scales.len() * 4 * BLOCK);
                let to = rows.codes.iter_mut().flat_map(|g| g.0.as_flattened_mut());
                to.zip(codes).for_each(|(v, b)| *v = b.cast_signed());
                let to = rows.scales.iter_mut().flat_map(|g| &mut g.0);
                to.zip(scales.as_chunks().0).for_each(|(v, b)| *v = f32::from_le_bytes(*b));
                let to = rows.floats.iter_mut().flat_map(|g| &mut g.0);
                to.zip(floats.as_chunks().0).for_each(|(v, b)| *v = f16::from_le_bytes(*b));
            }
        }
        Some(block)
    }
}

impl CacheLayout {
    /// Bytes of a block in memory and in a file, padding columns of INT8 vectors included.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        let end = self.end();
        match self.cache_type() {
            CacheType::F32 => end.values.saturating_mul(4),
            CacheType::F16 => end.values.saturating_mul(2),
            CacheType::I8 => {
                let groups = (end.codes.saturating_add(end.scales)).saturating_mul(4);
                groups.saturating_add(end.floats.saturating_mul(2)).saturating_mul(BLOCK)
            }
        }
    }
}

/// The places of the two parts of a row at position `at`: side by side in one table, or in two tables one behind the other.
fn places(shape: CacheShape, start: usize, at: usize, [a, b]: [&[f32]; 2]) -> [usize; 2] {
    match shape {
        CacheShape::Latent { .. } => {
            let first = start + at * (a.len() + b.len());
            [first, first + a.len()]
        }
        CacheShape::Kv { .. } => [start + at * a.len(), start + BLOCK * a.len() + at * b.len()],
    }
}

/// Rounds to the nearest F16; a finite value beyond its range becomes the largest F16, so that
/// one outlier costs precision instead of turning later scores into infinities.
fn saturating_f16(value: f32) -> f16 {
    if value.is_finite() { f16::from_f32(value.clamp(-65504.0, 65504.0)) } else { f16::from_f32(value) }
}

/// Room for `values` elements.
fn reserved<T>(values: usize) -> Option<Vec<T>> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(values).ok()?;
    Some(vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(shape: CacheShape, ty: CacheType) -> CacheBlock {
        let layout = Arc::new(CacheLayout::new([shape], ty).expect("a small layout"));
        let mut block = CacheBlock::reserved(&layout).expect("a small block");
        block.open();
        block
    }

    #[test]
    fn f16_rows_saturate_finite_values_and_keep_the_others() {
        let mut block = block(CacheShape::Latent { kv_lora: 4, qk_rope: 1 }, CacheType::F16);
        block.write(0, 1, [&[1e9, -1e9, f32::INFINITY, f32::NAN], &[0.1]], &mut []);
        let row = &block.float_rows::<f16>(0)[0][5..10];
        assert_eq!(row[..3].iter().map(|v| v.to_f32()).collect::<Vec<_>>(), [65504.0, -65504.0, f32::INFINITY]);
        assert!(row[3].is_nan());
        assert_eq!(row[4], f16::from_f32(0.1));
    }

    #[test]
    fn int8_rows_come_back_within_half_a_step() {
        let mut block = block(CacheShape::Latent { kv_lora: 6, qk_rope: 2 }, CacheType::I8);
        let mut staging = [0; 6];
        block.write(0, 63, [&[1.0, -2.0, 0.5, 127.0, 0.0, 2.5], &[0.25, 1e9]], &mut staging);
        let vector = block.coded_vector(0, 0);
        assert_eq!(vector.scales.0[63], 1.0);
        assert_eq!(vector.codes.iter().flat_map(|g| g.0[63]).collect::<Vec<_>>(), [1, -2, 0, 127, 0, 2, 0, 0]);
        let floats: Vec<f32> = block.coded_floats(0).iter().map(|g| g.0[63].to_f32()).collect();
        assert_eq!(floats, [0.25, 65504.0], "keys saturate");
    }

    #[test]
    fn each_head_has_its_scales() {
        let mut block = block(CacheShape::Kv { n_kv_heads: 2, head_dim: 3 }, CacheType::I8);
        let (keys, values) = ([127.0, 1.0, 0.0, 254.0, 2.0, 4.0], [0.0, 0.0, 0.0, -1.27, 0.01, 0.0]);
        block.write(0, 5, [&keys, &values], &mut [0; 3]);
        for (vector, (codes, scale)) in
            [([127, 1, 0, 0], 1.0), ([127, 1, 2, 0], 2.0), ([0; 4], 0.0), ([-127, 1, 0, 0], 0.01)]
                .into_iter()
                .enumerate()
        {
            let got = block.coded_vector(0, vector);
            assert_eq!(got.codes[0].0[5], codes, "vector {vector}");
            assert!((got.scales.0[5] - scale).abs() < 1e-6 || codes == [0; 4], "vector {vector}");
        }
    }

    #[test]
    fn a_latent_that_is_no_number_shows() {
        let mut block = block(CacheShape::Latent { kv_lora: 2, qk_rope: 0 }, CacheType::I8);
        block.write(0, 0, [&[f32::NAN, 1.0], &[]], &mut [0; 2]);
        let vector = block.coded_vector(0, 0);
        assert!((vector.scales.0[0] * f32::from(vector.codes[0].0[0][1])).is_nan());
    }

    #[test]
    fn bytes_are_read_back_and_other_lengths_refused() {
        for shape in [CacheShape::Latent { kv_lora: 6, qk_rope: 2 }, CacheShape::Kv { n_kv_heads: 2, head_dim: 4 }] {
            for ty in [CacheType::F32, CacheType::F16, CacheType::I8] {
                let mut block = block(shape, ty);
                for at in 0..BLOCK {
                    let row: Vec<f32> = (0..8).map(|i| ((at * 31 + i * 7) % 97) as f32 - 40.0).collect();
                    let cut = if matches!(shape, CacheShape::Latent { .. }) { 6 } else { 8 };
                    let second = if cut == 6 { &row[6..] } else { &row[..] };
                    block.write(0, at, [&row[..cut], second], &mut [0; 8]);
                }
                let mut bytes = Vec::new();
                block.write_bytes(&mut bytes);
                assert_eq!(bytes.len(), block.n_bytes());
                let back = CacheBlock::from_bytes(block.layout(), &bytes).expect("the same length");
                let mut again = Vec::new();
                back.write_bytes(&mut again);
                assert!(again == bytes && bytes.iter().any(|&b| b != 0), "{shape} as {ty}");
                assert!(CacheBlock::from_bytes(block.layout(), &bytes[1..]).is_none());
            }
        }
    }
}
