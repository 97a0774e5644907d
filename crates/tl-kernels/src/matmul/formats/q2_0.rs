//! Q2_0: blocks of 64 ternary weights, for rows that fill no blocks of 256.
//!
//! ```text
//! 18 bytes    d: f16 | codes: [u8; 16], weight i in bits 2 (i % 4) of byte i / 4        w = d (code - 1)
//! ```
//! Code 3 is the weight 2 d: no ternary file has it, and products take it as it is.
//!
//! Source: `block_q2_0` of GGML.

use ternary_core::BLOCK;

use super::dense::{DenseFormat, sealed};
use super::integer::{IntegerFormat, RUN};
use crate::simd::{LANES, QUAD_ROWS, Simd};

/// The type [`DenseType::Q2_0`](crate::DenseType::Q2_0) at compile time.
#[derive(Debug, Clone, Copy)]
pub struct Q2_0;

impl DenseFormat for Q2_0 {
    const NAME: &'static str = "Q2_0";
    const BLOCK_LEN: usize = 64;
    const BLOCK_BYTES: usize = 18;
}

/// The weights of a block without their scale, in natural order.
#[inline(always)]
fn weights(block: &[u8; 18]) -> [[u8; LANES]; 4] {
    let mut weights = [[0; LANES]; 4];
    for (fours, byte) in weights.as_flattened_mut().as_chunks_mut::<4>().0.iter_mut().zip(&block[2..]) {
        for (k, weight) in fours.iter_mut().enumerate() {
            *weight = (byte >> (2 * k) & 3).wrapping_sub(1);
        }
    }
    weights
}

impl sealed::Load for Q2_0 {
    type Unit = [u8; 18];
    /// The block's scale, and its weights.
    type Prepared<'a, S: Simd> = (S::F, [[u8; LANES]; 4]);
    const GROUPS: usize = 4;

    #[inline(always)]
    fn units(row: &[u8]) -> &[[u8; 18]] {
        row.as_chunks().0
    }
    #[inline(always)]
    fn blank<'a, S: Simd>(s: S) -> Self::Prepared<'a, S> {
        (s.splat(0.0), [[0; LANES]; 4])
    }
    #[inline(always)]
    fn prepare<'a, S: Simd, const R: usize>(s: S, units: [&'a [u8; 18]; R], out: &mut [Self::Prepared<'a, S>; R]) {
        for i in 0..R {
            out[i] = (s.splat_f16(Self::scale_bits(units[i])), weights(units[i]));
        }
    }
    #[inline(always)]
    fn group<S: Simd>(s: S, (scale, weights): &Self::Prepared<'_, S>, g: usize) -> S::F {
        s.mul(*scale, s.load_i8(&weights[g]))
    }
    /// A row is a whole number of blocks.
    #[inline(always)]
    fn tail(_row: &[u8]) -> [f32; LANES] {
        [0.0; LANES]
    }
}

impl IntegerFormat for Q2_0 {
    type Block = [u8; 18];
    /// The first 32 codes, 32 of another block, and the last 32.
    type Acts = [i8; 96];
    const GROUP: usize = 32;
    const PANEL_FROM_TOKENS: usize = 7;

    #[inline(always)]
    fn blocks(row: &[u8]) -> &[[u8; 18]] {
        row.as_chunks().0
    }
    #[inline(always)]
    fn acts(codes: &[[i8; BLOCK]], b: usize) -> &[i8; 96] {
        // Field order: run k of 32 lies at 2 (k % 4) + k / 4, so run k + 1 lies two runs behind an even k.
        let (k, codes) = (2 * (b % 4), &codes[b / 4]);
        codes[32 * (2 * (k % 4) + k / 4)..].first_chunk().expect("the last run of a block starts at 192 or 224")
    }
    #[inline(always)]
    fn scale_bits(block: &[u8; 18]) -> u16 {
        u16::from_le_bytes([block[0], block[1]])
    }
    #[inline(always)]
    fn dots<S: Simd>(s: S, blocks: [&[u8; 18]; QUAD_ROWS], acts: &[i8; 96]) -> [S::Sums; QUAD_ROWS] {
        s.dots_q2(blocks, acts)
    }
    #[inline(always)]
    fn unpack<S: Simd>(_s: S, block: &[u8; 18], r: usize, runs: &mut [[[i8; RUN]; LANES]]) {
        for (run, weights) in runs.iter_mut().zip(weights(block).as_flattened().as_chunks::<RUN>().0) {
            run[r] = bytemuck::cast(*weights);
        }
    }
    #[inline(always)]
    fn group_scales(_block: &[u8; 18]) -> Option<&[u8; RUN]> {
        None
    }
}
