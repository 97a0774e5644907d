//! Q8_0: blocks of 32 weights.
//!
//! ```text
//! 34 bytes    d: f16 | q: [i8; 32]        w = d q
//! ```
//! Source: `block_q8_0` of GGML.

use ternary_core::BLOCK;

use super::dense::{DenseFormat, sealed};
use super::integer::{IntegerFormat, RUN};
use crate::simd::{LANES, QUAD_ROWS, Simd};

/// The type [`DenseType::Q8_0`](crate::DenseType::Q8_0) at compile time.
#[derive(Debug, Clone, Copy)]
pub struct Q8_0;

impl DenseFormat for Q8_0 {
    const NAME: &'static str = "Q8_0";
    const BLOCK_LEN: usize = 32;
    const BLOCK_BYTES: usize = 34;
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

impl IntegerFormat for Q8_0 {
    type Block = [u8; 34];
    type Acts = [i8; 32];
    const GROUP: usize = 32;
    const PANEL_FROM_TOKENS: usize = 4;

    #[inline(always)]
    fn blocks(row: &[u8]) -> &[[u8; 34]] {
        row.as_chunks().0
    }
    #[inline(always)]
    fn acts(codes: &[[i8; BLOCK]], b: usize) -> &[i8; 32] {
        // Field order: run k of 32 lies at 2 (k % 4) + k / 4.
        let (k, runs) = (b % 8, codes[b / 8].as_chunks().0);
        &runs[2 * (k % 4) + k / 4]
    }
    #[inline(always)]
    fn scale_bits(block: &[u8; 34]) -> u16 {
        u16::from_le_bytes([block[0], block[1]])
    }
    #[inline(always)]
    fn dots<S: Simd>(s: S, blocks: [&[u8; 34]; QUAD_ROWS], acts: &[i8; 32]) -> [S::Sums; QUAD_ROWS] {
        s.dots_q8(blocks, acts)
    }
    #[inline(always)]
    fn unpack<S: Simd>(_s: S, block: &[u8; 34], r: usize, runs: &mut [[[i8; RUN]; LANES]]) {
        let integers: &[u8; RUN] = block.last_chunk().expect("a block ends with 32 integers");
        runs[0][r] = bytemuck::cast(*integers);
    }
    #[inline(always)]
    fn group_scales(_block: &[u8; 34]) -> Option<&[u8; RUN]> {
        None
    }
}
