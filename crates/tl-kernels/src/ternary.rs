//! The ternary matrix product with INT8 activations over weights as files store them.
//!
//! **Invariant:** `acc = fma(d_b * a_b, int_b as f32, acc)` over ascending blocks, `int_b` exact: the bits
//! of `ternary_core::oracle`. With codes c = t + 1, `int_b = sum c q - sum q`, and the second sum is the
//! same for all rows. A damaged code 3 gives a wrong number, never an overflow: |sum c q| <= 256 * 3 * 127.
//!
//! ```text
//! few tokens: four rows, block by block         many tokens: 32 rows become a tile (tile.rs), once
//!           block 0     block 1
//!   row 0 | codes d   | codes d   | ..          unpack 4 x 256 codes -> 4 dot products -> 4 integers
//!   row 1 | codes d   | codes d   | ..          -> 4 fused multiply-adds
//! ```
//! Source: unsigned codes times signed activations is the I2_S idea of bitnet.cpp (arXiv 2410.16144).

use std::marker::PhantomData;

use ternary_core::{BLOCK, Scales, TernaryTensor, f16};

use crate::activation::{ActivationBuffer, LANES, QuantizedRows};
use crate::aligned::{AlignedBuffer, CACHE_LINE_BYTES};
use crate::gemm::{PanelSource, TILE_ROWS, panel_product};
use crate::pool::ColumnBlock;
use crate::tile::{TILE, TileBlock, TileSpan, tile_product};
use crate::vector::{Kernel, Simd};

/// A packing at compile time.
pub(crate) trait TernaryFormat: Copy + Sync {
    /// The bytes of a block.
    type Block: Copy;
    /// The blocks of a row.
    fn blocks(row: &[u8]) -> &[Self::Block];
    /// The bits of the block's f16 scale.
    fn scale_bits(block: &Self::Block) -> u16;
    /// Codes 0..=2 of the block in natural order, one per byte. (A damaged code may be 3.)
    fn codes(block: &Self::Block) -> [u8; BLOCK];
    /// The codes as the 64 bytes of a TQ2_0 block.
    #[inline(always)]
    fn tq2_bytes(block: &Self::Block) -> [u8; BLOCK / 4] {
        let codes = Self::codes(block);
        let mut bytes = [0; BLOCK / 4];
        for (half, bytes) in codes.as_chunks::<128>().0.iter().zip(bytes.as_chunks_mut::<32>().0) {
            for (m, byte) in bytes.iter_mut().enumerate() {
                *byte = half[m] | half[32 + m] << 2 | half[64 + m] << 4 | half[96 + m] << 6;
            }
        }
        bytes
    }
    /// The codes in registers.
    #[inline(always)]
    fn load<S: Simd>(s: S, block: &Self::Block) -> S::Codes {
        s.load_codes(&Self::codes(block))
    }
}

/// TQ2_0: two halves of 32 bytes, four 2-bit fields per byte, field n of byte m = weight 32 n + m of the half.
#[derive(Clone, Copy)]
pub(crate) struct Tq2;
/// TQ1_0: five trits per byte, as a fraction of 243 scaled to 256.
#[derive(Clone, Copy)]
pub(crate) struct Tq1;
/// BITNET_T158: four neighbouring 2-bit codes per byte.
#[derive(Clone, Copy)]
pub(crate) struct T158;

impl TernaryFormat for Tq2 {
    type Block = [u8; 66];

    #[inline(always)]
    fn blocks(row: &[u8]) -> &[[u8; 66]] {
        row.as_chunks().0
    }

    #[inline(always)]
    fn scale_bits(block: &[u8; 66]) -> u16 {
        u16::from_le_bytes([block[64], block[65]])
    }

    #[inline(always)]
    fn codes(block: &[u8; 66]) -> [u8; BLOCK] {
        let mut codes = [0; BLOCK];
        for (packed, half) in block.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<128>().0) {
            for (n, out) in half.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                for (out, byte) in out.iter_mut().zip(packed) {
                    *out = (byte >> (2 * n)) & 3;
                }
            }
        }
        codes
    }

    #[inline(always)]
    fn tq2_bytes(block: &[u8; 66]) -> [u8; BLOCK / 4] {
        *block.first_chunk().expect("a block is longer than its codes")
    }

    #[inline(always)]
    fn load<S: Simd>(s: S, block: &[u8; 66]) -> S::Codes {
        s.unpack_tq2(block.first_chunk().expect("a block is longer than its codes"))
    }
}

impl TernaryFormat for T158 {
    type Block = [u8; 66];

    #[inline(always)]
    fn blocks(row: &[u8]) -> &[[u8; 66]] {
        row.as_chunks().0
    }

    #[inline(always)]
    fn scale_bits(block: &[u8; 66]) -> u16 {
        u16::from_le_bytes([block[64], block[65]])
    }

    #[inline(always)]
    fn codes(block: &[u8; 66]) -> [u8; BLOCK] {
        let mut codes = [0; BLOCK];
        for (out, &byte) in codes.as_chunks_mut::<4>().0.iter_mut().zip(block) {
            // Field k moves from bit 2 k to bit 8 k.
            let byte = u32::from(byte);
            *out = ((byte | byte << 6 | byte << 12 | byte << 18) & 0x0303_0303).to_le_bytes();
        }
        codes
    }
}

impl TernaryFormat for Tq1 {
    type Block = [u8; 54];

    #[inline(always)]
    fn blocks(row: &[u8]) -> &[[u8; 54]] {
        row.as_chunks().0
    }

    #[inline(always)]
    fn scale_bits(block: &[u8; 54]) -> u16 {
        u16::from_le_bytes([block[52], block[53]])
    }

    #[inline(always)]
    fn codes(block: &[u8; 54]) -> [u8; BLOCK] {
        tq1_codes(block.first_chunk().expect("a block is longer than its codes"))
    }

    #[inline(always)]
    fn load<S: Simd>(s: S, block: &[u8; 54]) -> S::Codes {
        s.unpack_tq1(block.first_chunk().expect("a block is longer than its codes"))
    }
}

/// The codes of the packed bytes of a TQ1_0 block, in natural order.
#[inline(always)]
pub(crate) fn tq1_codes(packed: &[u8; 52]) -> [u8; BLOCK] {
    let mut codes = [0; BLOCK];
    let (five_by_32, rest) = codes.split_at_mut(160);
    let (five_by_16, four_by_4) = rest.split_at_mut(80);
    base3_planes::<32>(&packed[..32], five_by_32);
    base3_planes::<16>(&packed[32..48], five_by_16);
    base3_planes::<4>(&packed[48..], four_by_4);
    codes
}

/// Plane n of `codes` holds trit n of each of the `W` bytes, most significant first.
#[inline(always)]
fn base3_planes<const W: usize>(bytes: &[u8], codes: &mut [u8]) {
    let mut fractions = [0u8; W];
    fractions.copy_from_slice(bytes);
    for plane in codes.as_chunks_mut::<W>().0 {
        for (out, fraction) in plane.iter_mut().zip(&mut fractions) {
            // (3 * fraction) >> 8, and what remains behind the point.
            *out = u8::from(*fraction > 85) + u8::from(*fraction > 170);
            *fraction = fraction.wrapping_mul(3);
        }
    }
}

/// A ternary matrix seen through its packing.
#[derive(Clone, Copy)]
pub(crate) struct TernaryRows<'a, P> {
    /// The matrix; its packing is `P`.
    pub(crate) tensor: &'a TernaryTensor,
    /// Its packing.
    pub(crate) packing: PhantomData<P>,
}

/// The product of some rows of a ternary matrix with all tokens, activations as INT8.
pub(crate) struct TernaryProduct<'a, 'b, P> {
    /// The matrix.
    pub(crate) rows: TernaryRows<'a, P>,
    /// The tokens.
    pub(crate) acts: &'a QuantizedRows,
    /// The rows to compute, as columns of `y`.
    pub(crate) out: ColumnBlock<'b, f32>,
    /// Room for a tile: a block per block of a row.
    pub(crate) tile: &'a mut [TileBlock],
}

/// From this many tokens on, rows are put into a tile once instead of being unpacked for each.
const TILE_FROM_TOKENS: usize = 4;

/// Blocks of scratch for the product of rows of `n_blocks` with `n` tokens.
pub(crate) fn tile_scratch(n_blocks: usize, n: usize) -> usize {
    if n < TILE_FROM_TOKENS { 0 } else { n_blocks }
}

impl<P: TernaryFormat> TernaryRows<'_, P> {
    /// Fills a tile with up to 32 rows from `start` on, read in one line from end to end.
    #[inline(always)]
    pub(crate) fn fill_tile<S: Simd>(&self, s: S, start: usize, len: usize, tile: &mut [TileBlock]) {
        let row_bytes = self.tensor.blocks_per_row() * size_of::<P::Block>();
        let bytes = &self.tensor.bytes()[start * row_bytes..];
        if len < TILE {
            tile.fill(TileBlock::PADDING);
        }
        for (i, row) in bytes.chunks_exact(row_bytes).take(len).enumerate() {
            for (block, out) in P::blocks(row).iter().zip(&mut *tile) {
                out.codes.as_flattened_mut().as_chunks_mut().0[i] = P::tq2_bytes(block);
                out.scales[i] = block_scale::<P>(self.tensor.scales(), block);
            }
        }
        for block in tile {
            let rows: [[u8; BLOCK / 4]; TILE] = bytemuck::cast(block.codes);
            s.transpose(&rows, &mut block.codes);
        }
    }

    /// The one scale of the tensor, if it has one.
    pub(crate) fn tensor_scale(&self) -> Option<f32> {
        match self.tensor.scales() {
            Scales::PerBlock => None,
            Scales::PerTensor(scale) => Some(scale),
        }
    }
}

/// The f16 scale of a block in a tile: 1 where the tensor has one scale.
#[inline(always)]
pub(crate) fn block_scale<P: TernaryFormat>(scales: Scales, block: &P::Block) -> [u8; 2] {
    match scales {
        Scales::PerBlock => P::scale_bits(block).to_le_bytes(),
        Scales::PerTensor(_) => f16::ONE.to_le_bytes(),
    }
}

/// The INT8 form of one token: a code array, a scale and a sum per block.
#[derive(Clone, Copy, Default)]
struct Token<'a> {
    codes: &'a [[i8; BLOCK]],
    scales: &'a [f32],
    sums: &'a [i32],
}

impl<'a> Token<'a> {
    /// Row `t` of `acts`, which has `n_blocks` blocks.
    #[inline(always)]
    fn new(acts: &'a QuantizedRows, t: usize, n_blocks: usize) -> Token<'a> {
        // One length for all, so that loops need no bounds checks.
        Token {
            codes: &acts.codes(t)[..n_blocks],
            scales: &acts.scales(t)[..n_blocks],
            sums: &acts.sums(t)[..n_blocks],
        }
    }
}

impl<P: TernaryFormat> Kernel for TernaryProduct<'_, '_, P> {
    type Output = ();
    const INTEGER: bool = true;

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        if self.out.n_rows() < TILE_FROM_TOKENS {
            self.by_rows(s);
        } else {
            self.by_tiles(s);
        }
    }
}

impl<P: TernaryFormat> TernaryProduct<'_, '_, P> {
    #[inline(always)]
    fn by_tiles<S: Simd>(&mut self, s: S) {
        let columns = self.out.columns();
        let tensor_scale = self.rows.tensor_scale();
        for column in columns.clone().step_by(TILE) {
            let len = TILE.min(columns.end - column);
            self.rows.fill_tile(s, column, len, self.tile);
            let span = TileSpan { first: 0, len, column, first_token: 0 };
            tile_product(s, self.tile, tensor_scale, self.acts, &span, &mut self.out);
        }
    }

    #[inline(always)]
    fn by_rows<S: Simd>(&mut self, s: S) {
        let columns = self.out.columns();
        let tensor = self.rows.tensor;
        let row_bytes = tensor.blocks_per_row() * size_of::<P::Block>();
        let bytes: &[u8] = tensor.bytes();
        for start in columns.clone().step_by(TILE_ROWS) {
            let mut rows: [&[P::Block]; TILE_ROWS] = [&[]; TILE_ROWS];
            for (i, row) in rows.iter_mut().enumerate() {
                let r = (start + i).min(columns.end - 1);
                *row = P::blocks(&bytes[r * row_bytes..(r + 1) * row_bytes]);
            }
            for t in 0..self.out.n_rows() {
                self.row_sums(s, rows, t, start);
            }
        }
    }

    /// Four rows, to be columns from `start`, times token `t`: bound by memory, so what lies ahead is asked for in the
    /// order of addresses, and four blocks share the work behind their sums.
    #[inline(always)]
    fn row_sums<S: Simd>(&mut self, s: S, rows: [&[P::Block]; TILE_ROWS], t: usize, start: usize) {
        let (rows, n_blocks) = same_length(rows);
        let token = Token::new(self.acts, t, n_blocks);
        let scales = self.rows.tensor.scales();
        let mut acc = s.quad([0.0; TILE_ROWS]);
        let n_fours = if S::FOUR_BLOCKS { n_blocks / 4 } else { 0 };
        if n_fours > 0 {
            // A loop per kind of scales: neither then has a branch in it.
            acc = match scales {
                Scales::PerBlock => sum_fours::<S, P>(s, rows, token, n_fours, Scales::PerBlock),
                per_tensor => sum_fours::<S, P>(s, rows, token, n_fours, per_tensor),
            };
        }
        for b in 4 * n_fours..n_blocks {
            ahead(s, &rows[0][0], b);
            // A loop, not a closure: closures are compiled without the level's instructions.
            let mut dots = [s.zero_sums(); TILE_ROWS];
            for i in 0..TILE_ROWS {
                dots[i] = s.dot_codes(&P::load(s, &rows[i][b]), &token.codes[b]);
            }
            let w_scales = block_scales::<S, P>(s, scales, rows.map(|row| &row[b]));
            acc = s.accumulate(acc, dots, token.sums[b], w_scales, token.scales[b]);
        }
        self.write(t, start, s.quad_values(acc));
    }

    /// Writes the results of four rows for one token; rows behind the last one are dropped.
    #[inline(always)]
    fn write(&mut self, t: usize, start: usize, sums: [f32; TILE_ROWS]) {
        let columns = self.out.columns();
        let width = TILE_ROWS.min(columns.end - start);
        self.out.row_mut(t)[start - columns.start..][..width].copy_from_slice(&sums[..width]);
    }
}

/// The sums of the first `4 * n_fours` blocks of four rows, four blocks at a time.
#[inline(always)]
fn sum_fours<S: Simd, P: TernaryFormat>(
    s: S,
    rows: [&[P::Block]; TILE_ROWS],
    token: Token<'_>,
    n_fours: usize,
    scales: Scales,
) -> S::Quad {
    let first = &rows[0][0];
    // One length for all, so that the loop needs no bounds checks.
    let rows = rows.map(|row| &row.as_chunks::<4>().0[..n_fours]);
    let codes = &token.codes.as_chunks::<4>().0[..n_fours];
    let act_sums = &token.sums.as_chunks::<4>().0[..n_fours];
    let a_scales = &token.scales.as_chunks::<4>().0[..n_fours];
    let mut acc = s.quad([0.0; TILE_ROWS]);
    for q in 0..n_fours {
        let rows = [&rows[0][q], &rows[1][q], &rows[2][q], &rows[3][q]];
        let mut dots = [[s.zero_sums(); TILE_ROWS]; 4];
        let mut w_scales = [s.quad([0.0; TILE_ROWS]); 4];
        for b in 0..4 {
            ahead(s, first, 4 * q + b);
            for i in 0..TILE_ROWS {
                dots[b][i] = s.dot_codes(&P::load(s, &rows[i][b]), &codes[q][b]);
            }
            w_scales[b] = block_scales::<S, P>(s, scales, [&rows[0][b], &rows[1][b], &rows[2][b], &rows[3][b]]);
        }
        acc = s.accumulate_four(acc, dots, &act_sums[q], w_scales, &a_scales[q]);
    }
    acc
}

/// The rows, told to be of one length so that loops over blocks need no bounds checks, and that length.
#[inline(always)]
fn same_length<B>([r0, r1, r2, r3]: [&[B]; TILE_ROWS]) -> ([&[B]; TILE_ROWS], usize) {
    let n = r0.len();
    ([r0, &r1[..n], &r2[..n], &r3[..n]], n)
}

/// How far ahead of the rows in work memory is asked for. Measured best on Zen 4; much less disturbs the hardware's own
/// prefetcher, which four rows at once already keep from seeing a straight line.
const AHEAD_BYTES: usize = 8 << 10;

/// Asks for the part of the coming rows that takes as long to read as block `b` of the four rows from `first` on.
#[inline(always)]
fn ahead<S: Simd, B>(s: S, first: &B, b: usize) {
    let part = TILE_ROWS * size_of::<B>();
    for line in 0..part.div_ceil(CACHE_LINE_BYTES) {
        s.prefetch_far(first, AHEAD_BYTES + b * part + line * CACHE_LINE_BYTES);
    }
}

/// The scales of four blocks: their own, or the tensor's.
#[inline(always)]
fn block_scales<S: Simd, P: TernaryFormat>(s: S, scales: Scales, blocks: [&P::Block; TILE_ROWS]) -> S::Quad {
    if let Scales::PerTensor(scale) = scales {
        return s.quad([scale; TILE_ROWS]);
    }
    let [b0, b1, b2, b3] = blocks;
    s.quad_f16([P::scale_bits(b0), P::scale_bits(b1), P::scale_bits(b2), P::scale_bits(b3)])
}

impl<P: TernaryFormat> PanelSource for TernaryRows<'_, P> {
    #[inline(always)]
    fn convert<S: Simd>(&self, s: S, r: usize, out: &mut [[f32; LANES]]) {
        let blocks = P::blocks(self.tensor.row_bytes(r));
        for (block, out) in blocks.iter().zip(out.as_chunks_mut::<{ BLOCK / LANES }>().0) {
            let [scale, ..] = s.quad_values(block_scales::<S, P>(s, self.tensor.scales(), [block; TILE_ROWS]));
            let codes = P::codes(block);
            for (out, codes) in out.iter_mut().zip(codes.as_chunks().0) {
                let trits = s.sub(s.load_i8(codes), s.splat(1.0));
                s.store(s.mul(trits, s.splat(scale)), out);
            }
        }
    }
}

/// The product of some rows of a ternary matrix with all tokens, activations as they are.
pub(crate) struct TernaryFloatProduct<'a, 'b, P> {
    /// The matrix.
    pub(crate) rows: TernaryRows<'a, P>,
    /// The tokens.
    pub(crate) acts: &'a ActivationBuffer,
    /// The rows to compute, as columns of `y`.
    pub(crate) out: ColumnBlock<'b, f32>,
    /// Room for converted rows.
    pub(crate) panel: &'a mut AlignedBuffer<f32>,
}

impl<P: TernaryFormat> Kernel for TernaryFloatProduct<'_, '_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        panel_product(s, &self.rows, self.acts, &mut self.out, self.panel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ternary_core::{Packing, f16};

    fn codes_of(packing: Packing, block: &[u8]) -> [u8; BLOCK] {
        match packing {
            Packing::Tq2_0 => Tq2::codes(block.try_into().unwrap()),
            Packing::Tq1_0 => Tq1::codes(block.try_into().unwrap()),
            Packing::BitnetT158 => T158::codes(block.try_into().unwrap()),
        }
    }

    /// Every packing decodes as `ternary_core` does, for codes in all patterns.
    #[test]
    fn codes_are_those_of_the_packings() {
        let mut trits = [0i8; BLOCK];
        for seed in 0..50usize {
            for (i, t) in trits.iter_mut().enumerate() {
                *t = ((i * (seed + 7) + i / 3 + seed) % 3) as i8 - 1;
            }
            let expected: [u8; BLOCK] = trits.map(|t| (t + 1) as u8);
            for packing in Packing::ALL {
                let mut block = vec![0; packing.block_bytes()];
                packing.encode(&trits, f16::from_f32(0.5), &mut block);
                assert_eq!(codes_of(packing, &block), expected, "{}", packing.name());
            }
        }
    }

    /// All 256 values of a TQ1_0 byte give codes 0..=2, the ones `ternary_core` reads.
    #[test]
    fn every_tq1_byte_decodes_like_the_reference() {
        for byte in 0..=255u8 {
            let mut block = [byte; 54];
            block[52..].copy_from_slice(&[0, 0x3c]);
            let mut trits = [0; BLOCK];
            Packing::Tq1_0.decode(&block, &mut trits).unwrap();
            assert_eq!(Tq1::codes(&block), trits.map(|t| (t + 1) as u8));
        }
    }
}
