//! The ternary matrix product with INT8 activations: four rows x many tokens, block by block.
//!
//! **Invariant:** `acc = fma(d_b * a_b, int_b as f32, acc)` over ascending blocks, `int_b` exact: the bits
//! of `ternary_core::oracle`. With codes c = t + 1, `int_b = sum c q - sum q`, and the second sum is the
//! same for all rows. A damaged code 3 gives a wrong number, never an overflow: |sum c q| <= 256 * 3 * 127.
//!
//! Source: the I2_S kernel family of bitnet.cpp for the idea of multiplying unsigned codes; KERNELS notes.

use std::marker::PhantomData;

use ternary_core::{BLOCK, Scales, TernaryTensor};

use crate::activation::{ActivationBuffer, LANES, QuantizedRows, field_order};
use crate::aligned::AlignedBuffer;
use crate::gemm::{PanelSource, TILE_ROWS, panel_product};
use crate::pool::ColumnBlock;
use crate::vector::{Kernel, Simd};

/// Tokens that share the unpacking of a block of weights.
const TOKENS: usize = 16;

/// Bytes of the f16 scale that ends a block of every packing.
const SCALE_BYTES: usize = 2;

/// A packing at compile time.
pub(crate) trait TernaryFormat: Copy + Sync {
    /// Bytes of a block, scale included.
    const BLOCK_BYTES: usize;
    /// Codes 0..=2 of the block in natural order, one per byte. (A damaged code may be 3.)
    fn codes(block: &[u8]) -> [u8; BLOCK];
    /// The codes in registers, in field order.
    #[inline(always)]
    fn load<S: Simd>(s: S, block: &[u8]) -> S::Codes {
        s.load_codes(&field_order(&Self::codes(block)))
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
    const BLOCK_BYTES: usize = BLOCK / 4 + SCALE_BYTES;

    #[inline(always)]
    fn codes(block: &[u8]) -> [u8; BLOCK] {
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
    fn load<S: Simd>(s: S, block: &[u8]) -> S::Codes {
        s.unpack_tq2(block.first_chunk().expect("a block is longer than its codes"))
    }
}

impl TernaryFormat for T158 {
    const BLOCK_BYTES: usize = BLOCK / 4 + SCALE_BYTES;

    #[inline(always)]
    fn codes(block: &[u8]) -> [u8; BLOCK] {
        let mut codes = [0; BLOCK];
        for (out, byte) in codes.as_chunks_mut::<4>().0.iter_mut().zip(block) {
            *out = [byte & 3, (byte >> 2) & 3, (byte >> 4) & 3, byte >> 6];
        }
        codes
    }
}

impl TernaryFormat for Tq1 {
    const BLOCK_BYTES: usize = 52 + SCALE_BYTES;

    #[inline(always)]
    fn codes(block: &[u8]) -> [u8; BLOCK] {
        let mut codes = [0; BLOCK];
        let (five_by_32, rest) = codes.split_at_mut(160);
        let (five_by_16, four_by_4) = rest.split_at_mut(80);
        base3_planes::<32>(&block[..32], five_by_32);
        base3_planes::<16>(&block[32..48], five_by_16);
        base3_planes::<4>(&block[48..52], four_by_4);
        codes
    }
}

/// Plane n of `codes` holds trit n of each of the `W` bytes, most significant first.
#[inline(always)]
fn base3_planes<const W: usize>(bytes: &[u8], codes: &mut [u8]) {
    let mut power = 1u8;
    for plane in codes.as_chunks_mut::<W>().0 {
        for (out, byte) in plane.iter_mut().zip(bytes) {
            *out = ((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as u8;
        }
        power = power.wrapping_mul(3);
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

impl<P: TernaryFormat> TernaryRows<'_, P> {
    /// The scale of a block: its own, or the tensor's.
    #[inline(always)]
    fn scales<S: Simd>(&self, s: S, blocks: [&[u8]; TILE_ROWS]) -> [f32; TILE_ROWS] {
        if let Scales::PerTensor(scale) = self.tensor.scales() {
            return [scale; TILE_ROWS];
        }
        let mut bits = [0; TILE_ROWS];
        for (bits, block) in bits.iter_mut().zip(blocks) {
            let at = P::BLOCK_BYTES - SCALE_BYTES;
            *bits = u16::from_le_bytes([block[at], block[at + 1]]);
        }
        s.widen4(bits)
    }

    #[inline(always)]
    fn block(row: &[u8], b: usize) -> &[u8] {
        &row[b * P::BLOCK_BYTES..(b + 1) * P::BLOCK_BYTES]
    }
}

/// The product of some rows of a ternary matrix with all tokens, activations as INT8.
pub(crate) struct TernaryProduct<'a, 'b, P> {
    /// The matrix.
    pub(crate) rows: TernaryRows<'a, P>,
    /// The tokens.
    pub(crate) acts: &'a QuantizedRows,
    /// The rows to compute, as columns of `y`.
    pub(crate) out: ColumnBlock<'b, f32>,
}

impl<P: TernaryFormat> Kernel for TernaryProduct<'_, '_, P> {
    type Output = ();
    const INTEGER: bool = true;

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let columns = self.out.columns();
        for start in columns.clone().step_by(TILE_ROWS) {
            let mut rows: [&[u8]; TILE_ROWS] = [&[]; TILE_ROWS];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = self.rows.tensor.row_bytes((start + i).min(columns.end - 1));
            }
            let width = TILE_ROWS.min(columns.end - start);
            let n = self.out.n_rows();
            for first in (0..n).step_by(TOKENS) {
                let n_tokens = TOKENS.min(n - first);
                let sums = self.strip(s, rows, first, n_tokens);
                for (t, sums) in sums[..n_tokens].iter().enumerate() {
                    let y = self.out.row_mut(first + t);
                    y[start - columns.start..][..width].copy_from_slice(&sums[..width]);
                }
            }
        }
    }
}

impl<P: TernaryFormat> TernaryProduct<'_, '_, P> {
    /// Four rows times `n_tokens` tokens from `first`: the sums by token.
    #[inline(always)]
    fn strip<S: Simd>(
        &self,
        s: S,
        rows: [&[u8]; TILE_ROWS],
        first: usize,
        n_tokens: usize,
    ) -> [[f32; TILE_ROWS]; TOKENS] {
        let mut acc = [[0.0; TILE_ROWS]; TOKENS];
        for b in 0..self.rows.tensor.blocks_per_row() {
            let mut blocks: [&[u8]; TILE_ROWS] = [&[]; TILE_ROWS];
            for (block, row) in blocks.iter_mut().zip(rows) {
                *block = TernaryRows::<P>::block(row, b);
            }
            let w_scales = self.rows.scales(s, blocks);
            let c0 = P::load(s, blocks[0]);
            let c1 = P::load(s, blocks[1]);
            let c2 = P::load(s, blocks[2]);
            let c3 = P::load(s, blocks[3]);
            for (t, acc) in acc[..n_tokens].iter_mut().enumerate() {
                let codes = &self.acts.codes(first + t)[b];
                let dots = [
                    s.dot_codes(&c0, codes),
                    s.dot_codes(&c1, codes),
                    s.dot_codes(&c2, codes),
                    s.dot_codes(&c3, codes),
                ];
                let (sum, scale) = (self.acts.sums(first + t)[b], self.acts.scales(first + t)[b]);
                s.accumulate(acc, dots, sum, w_scales, scale);
            }
        }
        acc
    }
}

impl<P: TernaryFormat> PanelSource for TernaryRows<'_, P> {
    #[inline(always)]
    fn convert<S: Simd>(&self, s: S, r: usize, out: &mut [[f32; LANES]]) {
        let row = self.tensor.row_bytes(r);
        for (b, out) in out.as_chunks_mut::<{ BLOCK / LANES }>().0.iter_mut().enumerate() {
            let block = Self::block(row, b);
            let [scale, ..] = self.scales(s, [block; TILE_ROWS]);
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
                let codes = match packing {
                    Packing::Tq2_0 => Tq2::codes(&block),
                    Packing::Tq1_0 => Tq1::codes(&block),
                    Packing::BitnetT158 => T158::codes(&block),
                };
                assert_eq!(codes, expected, "{}", packing.name());
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
