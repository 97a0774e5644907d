//! The operations that every instruction set provides, and the pieces of work that are compiled for each.
//!
//! How generic code gets its instructions: a [`Kernel`] is plain data with one `#[inline(always)]` method.
//! [`Simd::run`] of a level inlines that method into a function compiled with the level's
//! `#[target_feature]`s, and with it every vector operation the method calls.

use half::f16;
use ternary_core::BLOCK;

use super::{Float, Int8, LANES, Lookup, TILE, TableSimd, TileBlock, TileSimd, TokenBlock, TritTileSimd};
use crate::memory::CACHE_LINE_BYTES;

/// An instruction set level: vectors of sixteen f32, blocks of 256 ternary codes, and the operations on tiles and rows.
pub trait Simd: Float + TileSimd + TableSimd + TritTileSimd + Int8 {
    /// Rows and tokens of a patch, the part of a dense product whose sums stay in registers.
    const PATCH: PatchShape;
    /// Whether [`Simd::transpose_quads`] is made of vector instructions, so that a panel of integers pays for few tokens.
    const TRANSPOSES: bool = false;
    /// Whether the registers hold the partial sums of four rows and four blocks.
    const FOUR_BLOCKS: bool = false;
    /// The codes 0..=2 of one ternary block, in the order of the activation codes.
    type Codes: Copy;
    /// Partial sums of products of codes and activations.
    type Sums: Copy;
    /// Four f32, one for each of four rows.
    type Quad: Copy;

    /// Runs `kernel` compiled for this level.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    /// Asks the memory for the cache line `distance` bytes behind the start of `near`. It changes no result, so any
    /// distance is allowed.
    fn prefetch<T>(self, near: &T, distance: usize);
    /// As [`Simd::prefetch`], but into the second-level cache, for data that is needed thousands of bytes later.
    #[inline(always)]
    fn prefetch_far<T>(self, near: &T, distance: usize) {
        self.prefetch(near, distance);
    }
    /// [`Simd::prefetch_far`] for the `len` bytes that lie `distance` behind the start of `near`.
    #[inline(always)]
    fn prefetch_bytes<T>(self, near: &T, distance: usize, len: usize) {
        for line in 0..len.div_ceil(CACHE_LINE_BYTES) {
            self.prefetch_far(near, distance + line * CACHE_LINE_BYTES);
        }
    }
    /// Reads sixteen f32 values.
    fn load(self, x: &[f32; LANES]) -> Self::F;
    /// Writes the sixteen elements of `a`.
    fn store(self, a: Self::F, out: &mut [f32; LANES]);
    /// Reads sixteen little-endian f32 at any address.
    fn load_f32(self, bytes: &[u8; 4 * LANES]) -> Self::F;
    /// Reads sixteen little-endian f16 and widens them.
    fn load_f16(self, bytes: &[u8; 2 * LANES]) -> Self::F;
    /// Reads sixteen f16 and widens them.
    fn load_half(self, x: &[f16; LANES]) -> Self::F;
    /// Reads sixteen little-endian bf16 and widens them.
    fn load_bf16(self, bytes: &[u8; 2 * LANES]) -> Self::F;
    /// The f16 with these bits, widened, in every element.
    fn splat_f16(self, bits: u16) -> Self::F;
    /// Reads sixteen i8 and converts them.
    fn load_i8(self, bytes: &[u8; LANES]) -> Self::F;
    /// Reads sixteen i32 and converts each to the nearest f32, ties to even.
    #[inline(always)]
    fn load_i32(self, x: &[i32; LANES]) -> Self::F {
        self.load(&x.map(|x| x as f32))
    }
    /// The sum by the tree of `dot16`: lane j += lane j + s, for s in 8, 4, 2, 1.
    fn reduce(self, a: Self::F) -> f32;
    /// [`Simd::reduce`] of each of four vectors.
    #[inline(always)]
    fn reduce4(self, a: [Self::F; 4]) -> [f32; 4] {
        [self.reduce(a[0]), self.reduce(a[1]), self.reduce(a[2]), self.reduce(a[3])]
    }
    /// The INT8 weights of half a Q6_K block, in natural order: `q - 32` with the low four bits of quarter k in
    /// `low[32 (k % 2) + m] >> 4 (k / 2)` and the high two in `high[m] >> 2 k`.
    #[inline(always)]
    fn unpack_q6(self, low: &[u8; 64], high: &[u8; 32], codes: &mut [[u8; LANES]; 8]) {
        let [q0, q1, q2, q3] = codes.as_flattened_mut().as_chunks_mut::<32>().0 else { unreachable!("four quarters") };
        for m in 0..32 {
            let (a, b, h) = (low[m], low[32 + m], high[m]);
            q0[m] = (a & 15 | (h & 3) << 4).wrapping_sub(32);
            q1[m] = (b & 15 | (h >> 2 & 3) << 4).wrapping_sub(32);
            q2[m] = (a >> 4 | (h >> 4 & 3) << 4).wrapping_sub(32);
            q3[m] = (b >> 4 | (h >> 6) << 4).wrapping_sub(32);
        }
    }

    /// The codes of the 64 packed bytes of a TQ2_0 block.
    fn unpack_tq2(self, packed: &[u8; BLOCK / 4]) -> Self::Codes;
    /// The codes of the 52 packed bytes of a TQ1_0 block.
    fn unpack_tq1(self, packed: &[u8; 52]) -> Self::Codes;
    /// Codes given one per byte in natural order.
    fn load_codes(self, codes: &[u8; BLOCK]) -> Self::Codes;
    /// The sum of no products.
    fn zero_sums(self) -> Self::Sums;
    /// `sum of codes[i] * acts[i]`, still spread over several partial sums; `acts` are in field order.
    fn dot_codes(self, codes: &Self::Codes, acts: &[i8; BLOCK]) -> Self::Sums;
    /// `fma(w_scales[j] * a_scale, (total(dots[j]) - act_sum) as f32, acc[j])` for each row j of four.
    fn accumulate(
        self,
        acc: Self::Quad,
        dots: [Self::Sums; 4],
        act_sum: i32,
        w_scales: Self::Quad,
        a_scale: f32,
    ) -> Self::Quad;
    /// [`Simd::accumulate`] for four consecutive blocks of four rows: `dots[b][j]` belongs to block b of row j.
    #[inline(always)]
    fn accumulate_four(
        self,
        mut acc: Self::Quad,
        dots: [[Self::Sums; 4]; 4],
        act_sums: &[i32; 4],
        w_scales: [Self::Quad; 4],
        a_scales: &[f32; 4],
    ) -> Self::Quad {
        for b in 0..4 {
            acc = self.accumulate(acc, dots[b], act_sums[b], w_scales[b], a_scales[b]);
        }
        acc
    }
    /// `quads[q][r]` = bytes `4 q .. 4 q + 4` of row r.
    #[inline(always)]
    fn transpose_quads(self, rows: &[[i8; 32]; LANES], quads: &mut [[[i8; 4]; LANES]; 8]) {
        for (r, row) in rows.iter().enumerate() {
            for (quads, quad) in quads.iter_mut().zip(row.as_chunks::<4>().0) {
                quads[r] = *quad;
            }
        }
    }
    /// Sixteen i32, one for each row of a panel of integers.
    type I: Copy;
    /// The sum of no products, to which [`Simd::dot_quads`] adds. `x_sum` is the sum of all `x` that it will be given:
    /// instruction sets that make the weights unsigned subtract the excess of all products beforehand.
    fn no_quads(self, x_sum: i32) -> Self::I;
    /// `acc[r] + w[r][0] x[0] + .. + w[r][3] x[3]`, for x in -127..=127.
    fn dot_quads(self, acc: Self::I, w: &[[i8; 4]; LANES], x: [i8; 4]) -> Self::I;
    /// `a[r] * b[r] + c[r]`
    fn mul_add_i32(self, a: Self::I, b: &[i32; LANES], c: Self::I) -> Self::I;
    /// The nearest f32, ties to even.
    fn to_f32(self, a: Self::I) -> Self::F;
    /// One partial sum of this value.
    fn sum_of(self, total: i32) -> Self::Sums;
    /// For a Q8_0 block of each of four rows the sum of its integers times `acts`, still spread over several partial sums.
    #[inline(always)]
    fn dots_q8(self, blocks: [&[u8; 34]; 4], acts: &[i8; 32]) -> [Self::Sums; 4] {
        let mut sums = [self.zero_sums(); 4];
        for (sum, block) in sums.iter_mut().zip(blocks) {
            let products = block[2..].iter().zip(acts).map(|(w, a)| i32::from(w.cast_signed()) * i32::from(*a));
            *sum = self.sum_of(products.sum());
        }
        sums
    }
    /// For a Q2_0 block of each of four rows the sum of `code - 1` times its activations: `acts[..32]` and `acts[64..]`.
    #[inline(always)]
    fn dots_q2(self, blocks: [&[u8; 18]; 4], acts: &[i8; 96]) -> [Self::Sums; 4] {
        let mut sums = [self.zero_sums(); 4];
        for (sum, block) in sums.iter_mut().zip(blocks) {
            let mut total = 0;
            for (i, byte) in block[2..].iter().enumerate() {
                for k in 0..4 {
                    let at = 4 * i + 32 * (i / 8) + k;
                    total += (i32::from(byte >> (2 * k) & 3) - 1) * i32::from(acts[at]);
                }
            }
            *sum = self.sum_of(total);
        }
        sums
    }
    /// For a Q6_K block of each of four rows the sum of group scale times `q - 32` times `acts`, which are in field order.
    #[inline(always)]
    fn dots_q6(self, blocks: [&[u8; 210]; 4], acts: &[i8; BLOCK]) -> [Self::Sums; 4] {
        let mut sums = [self.zero_sums(); 4];
        for (sum, block) in sums.iter_mut().zip(blocks) {
            let mut total = 0;
            for half in 0..2 {
                let low = block[64 * half..].first_chunk().expect("two halves of 64");
                let high = block[128 + 32 * half..].first_chunk().expect("two halves of 32");
                let mut codes = [[0; LANES]; 8];
                self.unpack_q6(low, high, &mut codes);
                for (g, codes) in codes.iter().enumerate() {
                    let acts = &acts[64 * (g / 2) + 32 * half + LANES * (g % 2)..][..LANES];
                    let products = codes.iter().zip(acts).map(|(w, a)| i32::from(w.cast_signed()) * i32::from(*a));
                    total += i32::from(block[192 + 8 * half + g].cast_signed()) * products.sum::<i32>();
                }
            }
            *sum = self.sum_of(total);
        }
        sums
    }
    /// A quad of four f32.
    fn quad(self, x: [f32; 4]) -> Self::Quad;
    /// The four f32 of a quad.
    fn quad_values(self, a: Self::Quad) -> [f32; 4];
    /// A quad of four f16, given by their bits and widened.
    fn quad_f16(self, bits: [u16; 4]) -> Self::Quad;

    /// `acc = fma(scale * token.scale, (sums - token.sum) as f32, acc)` for the 32 rows of a tile: the end of
    /// [`TileSimd::tile_block`] for instruction sets that have no faster way.
    #[inline(always)]
    fn add_tile_sums(self, block: &TileBlock, sums: &[i32; TILE], token: &TokenBlock<'_>, acc: &mut [f32; TILE]) {
        let mut ints = [0.0; TILE];
        for (int, sum) in ints.iter_mut().zip(sums) {
            *int = (sum - token.sum) as f32;
        }
        let (scales, _) = block.scales.as_flattened().as_chunks();
        for ((acc, ints), scales) in acc.as_chunks_mut().0.iter_mut().zip(ints.as_chunks().0).zip(scales) {
            let scales = self.mul(self.load_f16(scales), self.splat(token.scale));
            self.store(self.fma(scales, self.load(ints), self.load(acc)), acc);
        }
    }

    /// The look-ups of this instruction set, [`PortableLookup`] where it has none of its own.
    type Lookup: Lookup;
    /// The value through which look-ups are called.
    fn lookup(self) -> Self::Lookup;
}

/// Rows and tokens of a patch of a dense product, chosen so that the partial sums fit the registers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PatchShape {
    /// 24 of 32 registers hold sums.
    Rows4Tokens6,
    /// 12 of 16 registers hold sums, each half a group.
    Rows2Tokens3,
    /// For levels without vector registers: sums in memory, one token at a time.
    Rows4Tokens1,
}

impl PatchShape {
    /// Most tokens of a patch.
    pub(crate) const fn tokens(self) -> usize {
        match self {
            PatchShape::Rows4Tokens6 => 6,
            PatchShape::Rows2Tokens3 => 3,
            PatchShape::Rows4Tokens1 => 1,
        }
    }

    /// Most tokens for which packed weights are read as they are stored: the tokens fit one patch, or are so few that
    /// converting a row several times is cheaper than storing it converted.
    pub(crate) const fn streamed_tokens(self) -> usize {
        match self {
            PatchShape::Rows4Tokens6 | PatchShape::Rows2Tokens3 => 8,
            PatchShape::Rows4Tokens1 => 3,
        }
    }
}

/// A piece of work that is compiled once for each level.
pub trait Kernel {
    /// The result of the work.
    type Output;
    /// Whether the kernel multiplies integers. Others are compiled once for levels that differ in integer products alone.
    const INTEGER: bool = false;
    /// Does the work. Implementations and every function they pass `s` to are `#[inline(always)]`: a call that is not
    /// inlined would run without the instructions of the level.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}
