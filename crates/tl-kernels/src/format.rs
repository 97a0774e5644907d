//! Dense weight types: how sixteen neighbouring weights of a row become f32.
//!
//! **Invariant:** each weight is converted with at most one rounding (the product of a block's scale with
//! an integer), so `load` on every level equals the scalar dequantisation of the format.
//!
//! ```text
//! F32, F16, BF16   little-endian values
//! Q8_0   34 bytes, 32 weights    d: f16 | q: [i8; 32]                                    w = d q
//! Q6_K  210 bytes, 256 weights   low: [u8; 128] | high: [u8; 64] | s: [i8; 16] | d: f16  w = d s (q - 32)
//!        group g of 16 weights: half h = g / 8, quarter k = (g % 8) / 2, part p = g % 2, scale s[g]
//!        low 4 bits:  low[64 h + 32 (k % 2) + 16 p ..][..16] >> 4 (k / 2)
//!        high 2 bits: high[32 h + 16 p ..][..16] >> 2 k
//! ```
//! Source: the GGML block definitions `block_q8_0` and `block_q6_K`.

use std::fmt;

use half::f16;

use crate::activation::LANES;
use crate::error::{Error, Result};
use crate::vector::Simd;

/// A dense weight type that kernels read as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DenseType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an IEEE single.
    Bf16,
    /// 8-bit integers, one scale per 32 weights.
    Q8_0,
    /// 6-bit integers, 8-bit scales per 16 weights, one scale per 256.
    Q6K,
}

impl DenseType {
    /// Every dense type.
    pub const ALL: [DenseType; 5] = [DenseType::F32, DenseType::F16, DenseType::Bf16, DenseType::Q8_0, DenseType::Q6K];

    /// The GGML name of the type.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.layout().0
    }

    /// Weights per block.
    #[must_use]
    pub fn block_len(self) -> usize {
        self.layout().1
    }

    /// Bytes per block.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        self.layout().2
    }

    /// Bytes of a row of `cols` weights.
    ///
    /// # Errors
    /// [`Error::BlockMultiple`] when the row is no whole number of blocks, [`Error::ShapeOverflow`].
    pub fn row_bytes(self, cols: usize) -> Result<usize> {
        let (ty, block, block_bytes) = self.layout();
        if !cols.is_multiple_of(block) {
            return Err(Error::BlockMultiple { ty, cols, block });
        }
        let bytes = (cols / block).checked_mul(block_bytes);
        bytes.ok_or(Error::ShapeOverflow { ty, rows: 1, cols })
    }

    /// Name, weights per block, bytes per block.
    fn layout(self) -> (&'static str, usize, usize) {
        fn of<F: DenseFormat>() -> (&'static str, usize, usize) {
            (F::NAME, F::BLOCK_LEN, F::BLOCK_BYTES)
        }
        match self {
            DenseType::F32 => of::<F32>(),
            DenseType::F16 => of::<F16>(),
            DenseType::Bf16 => of::<Bf16>(),
            DenseType::Q8_0 => of::<Q8_0>(),
            DenseType::Q6K => of::<Q6K>(),
        }
    }
}

impl fmt::Display for DenseType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A dense weight type, at compile time. Sealed: the implementors are the types of this module.
pub trait DenseFormat: sealed::Load + fmt::Debug + Copy + Send + Sync + 'static {
    /// The run-time name of the same type.
    const TYPE: DenseType;
    /// The GGML name of the type.
    const NAME: &'static str;
    /// Weights per block.
    const BLOCK_LEN: usize;
    /// Bytes per block.
    const BLOCK_BYTES: usize;
}

/// Marker of [`DenseType::F32`].
#[derive(Debug, Clone, Copy)]
pub struct F32;
/// Marker of [`DenseType::F16`].
#[derive(Debug, Clone, Copy)]
pub struct F16;
/// Marker of [`DenseType::Bf16`].
#[derive(Debug, Clone, Copy)]
pub struct Bf16;
/// Marker of [`DenseType::Q8_0`].
#[derive(Debug, Clone, Copy)]
pub struct Q8_0;
/// Marker of [`DenseType::Q6K`].
#[derive(Debug, Clone, Copy)]
pub struct Q6K;

impl DenseFormat for F32 {
    const TYPE: DenseType = DenseType::F32;
    const NAME: &'static str = "F32";
    const BLOCK_LEN: usize = 1;
    const BLOCK_BYTES: usize = 4;
}

impl DenseFormat for F16 {
    const TYPE: DenseType = DenseType::F16;
    const NAME: &'static str = "F16";
    const BLOCK_LEN: usize = 1;
    const BLOCK_BYTES: usize = 2;
}

impl DenseFormat for Bf16 {
    const TYPE: DenseType = DenseType::Bf16;
    const NAME: &'static str = "BF16";
    const BLOCK_LEN: usize = 1;
    const BLOCK_BYTES: usize = 2;
}

impl DenseFormat for Q8_0 {
    const TYPE: DenseType = DenseType::Q8_0;
    const NAME: &'static str = "Q8_0";
    const BLOCK_LEN: usize = 32;
    const BLOCK_BYTES: usize = 34;
}

impl DenseFormat for Q6K {
    const TYPE: DenseType = DenseType::Q6K;
    const NAME: &'static str = "Q6_K";
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = 210;
}

/// Keeps [`DenseFormat`] closed and its vector code out of the public interface.
pub(crate) mod sealed {
    use super::*;

    /// Access to the weights of a row of packed bytes.
    pub trait Load {
        /// One block, or one group of sixteen where the block is a single weight.
        type Unit: Copy;
        /// A unit on its way to f32: what its groups share has been worked out.
        type Prepared<'a, S: Simd>: Copy;
        /// Groups of sixteen weights per unit.
        const GROUPS: usize;

        /// The whole units of a row.
        fn units(row: &[u8]) -> &[Self::Unit];

        /// Room for a unit to be prepared in.
        fn blank<'a, S: Simd>(s: S) -> Self::Prepared<'a, S>;

        /// Works out what the groups of each unit share.
        fn prepare<'a, S: Simd, const R: usize>(s: S, units: [&'a Self::Unit; R], out: &mut [Self::Prepared<'a, S>; R]);

        /// Group `g` of a unit.
        fn group<S: Simd>(s: S, unit: &Self::Prepared<'_, S>, g: usize) -> S::F;

        /// The weights behind the last whole unit, fewer than sixteen, then zeros.
        fn tail(row: &[u8]) -> [f32; LANES];
    }
}

/// The weights behind the whole groups of `row`, by `value` of each weight's bytes, padded with zeros.
#[inline(always)]
fn tail_of<const BYTES: usize>(row: &[u8], value: impl Fn([u8; BYTES]) -> f32) -> [f32; LANES] {
    let (words, _) = row.as_chunks::<BYTES>();
    let mut tail = [0.0; LANES];
    for (out, &word) in tail.iter_mut().zip(&words[words.len() - words.len() % LANES..]) {
        *out = value(word);
    }
    tail
}

impl sealed::Load for F32 {
    type Unit = [u8; 64];
    type Prepared<'a, S: Simd> = &'a [u8; 64];
    const GROUPS: usize = 1;

    #[inline(always)]
    fn units(row: &[u8]) -> &[[u8; 64]] {
        row.as_chunks().0
    }
    #[inline(always)]
    fn blank<'a, S: Simd>(_s: S) -> &'a [u8; 64] {
        &[0; 64]
    }
    #[inline(always)]
    fn prepare<'a, S: Simd, const R: usize>(_s: S, units: [&'a [u8; 64]; R], out: &mut [&'a [u8; 64]; R]) {
        *out = units;
    }
    #[inline(always)]
    fn group<S: Simd>(s: S, unit: &&[u8; 64], _g: usize) -> S::F {
        s.load_f32(unit)
    }
    #[inline(always)]
    fn tail(row: &[u8]) -> [f32; LANES] {
        tail_of(row, f32::from_le_bytes)
    }
}

impl sealed::Load for F16 {
    type Unit = [u8; 32];
    type Prepared<'a, S: Simd> = &'a [u8; 32];
    const GROUPS: usize = 1;

    #[inline(always)]
    fn units(row: &[u8]) -> &[[u8; 32]] {
        row.as_chunks().0
    }
    #[inline(always)]
    fn blank<'a, S: Simd>(_s: S) -> &'a [u8; 32] {
        &[0; 32]
    }
    #[inline(always)]
    fn prepare<'a, S: Simd, const R: usize>(_s: S, units: [&'a [u8; 32]; R], out: &mut [&'a [u8; 32]; R]) {
        *out = units;
    }
    #[inline(always)]
    fn group<S: Simd>(s: S, unit: &&[u8; 32], _g: usize) -> S::F {
        s.load_f16(unit)
    }
    #[inline(always)]
    fn tail(row: &[u8]) -> [f32; LANES] {
        tail_of(row, |word| f16::from_le_bytes(word).to_f32())
    }
}

impl sealed::Load for Bf16 {
    type Unit = [u8; 32];
    type Prepared<'a, S: Simd> = &'a [u8; 32];
    const GROUPS: usize = 1;

    #[inline(always)]
    fn units(row: &[u8]) -> &[[u8; 32]] {
        row.as_chunks().0
    }
    #[inline(always)]
    fn blank<'a, S: Simd>(_s: S) -> &'a [u8; 32] {
        &[0; 32]
    }
    #[inline(always)]
    fn prepare<'a, S: Simd, const R: usize>(_s: S, units: [&'a [u8; 32]; R], out: &mut [&'a [u8; 32]; R]) {
        *out = units;
    }
    #[inline(always)]
    fn group<S: Simd>(s: S, unit: &&[u8; 32], _g: usize) -> S::F {
        s.load_bf16(unit)
    }
    #[inline(always)]
    fn tail(row: &[u8]) -> [f32; LANES] {
        tail_of(row, |word| f32::from_bits(u32::from(u16::from_le_bytes(word)) << 16))
    }
}

impl sealed::Load for Q8_0 {
    type Unit = [u8; 34];
    /// The block's scale, and its integers.
    type Prepared<'a, S: Simd> = (S::F, &'a [u8; 34]);
    const GROUPS: usize = 2;

    #[inline(always)]
    fn units(row: &[u8]) -> &[[u8; 34]] {
        row.as_chunks().0
    }
    #[inline(always)]
    fn blank<'a, S: Simd>(s: S) -> (S::F, &'a [u8; 34]) {
        (s.splat(0.0), &[0; 34])
    }
    #[inline(always)]
    fn prepare<'a, S: Simd, const R: usize>(s: S, units: [&'a [u8; 34]; R], out: &mut [(S::F, &'a [u8; 34]); R]) {
        for i in 0..R {
            out[i] = (s.splat_f16(u16::from_le_bytes([units[i][0], units[i][1]])), units[i]);
        }
    }
    #[inline(always)]
    fn group<S: Simd>(s: S, (scale, block): &(S::F, &[u8; 34]), g: usize) -> S::F {
        let codes = block[2 + 16 * g..].first_chunk().expect("a block has two groups");
        s.mul(*scale, s.load_i8(codes))
    }
    /// A row is a whole number of blocks.
    #[inline(always)]
    fn tail(_row: &[u8]) -> [f32; LANES] {
        [0.0; LANES]
    }
}

/// A Q6_K block with its integers unpacked, on cache lines of its own.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct Unpacked6 {
    /// The scale of each group.
    scales: [f32; 16],
    /// `q - 32` of each group.
    codes: [[u8; LANES]; 16],
}

impl sealed::Load for Q6K {
    type Unit = [u8; 210];
    type Prepared<'a, S: Simd> = Unpacked6;
    const GROUPS: usize = 16;

    #[inline(always)]
    fn units(row: &[u8]) -> &[[u8; 210]] {
        row.as_chunks().0
    }
    #[inline(always)]
    fn blank<'a, S: Simd>(_s: S) -> Self::Prepared<'a, S> {
        Unpacked6 { scales: [0.0; 16], codes: [[0; LANES]; 16] }
    }
    #[inline(always)]
    fn prepare<S: Simd, const R: usize>(s: S, units: [&[u8; 210]; R], out: &mut [Unpacked6; R]) {
        for (block, out) in units.into_iter().zip(out) {
            let (low, rest) = block.split_at(128);
            let (high, rest) = rest.split_at(64);
            let (scales, d) = rest.split_at(16);
            let halves = low.as_chunks::<64>().0.iter().zip(high.as_chunks::<32>().0);
            for ((low, high), codes) in halves.zip(out.codes.as_chunks_mut::<8>().0) {
                s.unpack_q6(low, high, codes);
            }
            let integers = s.load_i8(scales.first_chunk().expect("a block has sixteen group scales"));
            // The product of the two scales has 19 bits: it is exact.
            let scale = s.splat_f16(u16::from_le_bytes([d[0], d[1]]));
            s.store(s.mul(scale, integers), &mut out.scales);
        }
    }
    #[inline(always)]
    fn group<S: Simd>(s: S, unit: &Unpacked6, g: usize) -> S::F {
        s.mul(s.splat(unit.scales[g]), s.load_i8(&unit.codes[g]))
    }
    /// A row is a whole number of blocks.
    #[inline(always)]
    fn tail(_row: &[u8]) -> [f32; LANES] {
        [0.0; LANES]
    }
}
