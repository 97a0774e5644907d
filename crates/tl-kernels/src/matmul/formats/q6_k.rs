//! Q6_K: blocks of 256 weights in groups of 16.
//!
//! ```text
//! 210 bytes   low: [u8; 128] | high: [u8; 64] | s: [i8; 16] | d: f16        w = d s (q - 32)
//! group g of 16 weights: half h = g / 8, quarter k = (g % 8) / 2, part p = g % 2, scale s[g]
//!   low 4 bits    low[64 h + 32 (k % 2) + 16 p ..][..16] >> 4 (k / 2)
//!   high 2 bits   high[32 h + 16 p ..][..16] >> 2 k
//! ```
//! Source: `block_q6_K` of GGML.

use ternary_core::BLOCK;

use super::dense::{DenseFormat, sealed};
use super::integer::{IntegerFormat, RUN};
use crate::simd::{LANES, QUAD_ROWS, Simd};

/// The type [`DenseType::Q6K`](crate::DenseType::Q6K) at compile time.
#[derive(Debug, Clone, Copy)]
pub struct Q6K;

impl DenseFormat for Q6K {
    const NAME: &'static str = "Q6_K";
    const BLOCK_LEN: usize = 256;
    const BLOCK_BYTES: usize = 210;
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
            // The product of the two scales has 19 bits, so it is exact.
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

impl IntegerFormat for Q6K {
    type Block = [u8; 210];
    type Acts = [i8; BLOCK];
    const GROUP: usize = 16;
    const PANEL_FROM_TOKENS: usize = 8;

    #[inline(always)]
    fn blocks(row: &[u8]) -> &[[u8; 210]] {
        row.as_chunks().0
    }
    #[inline(always)]
    fn acts(codes: &[[i8; BLOCK]], b: usize) -> &[i8; BLOCK] {
        &codes[b]
    }
    #[inline(always)]
    fn scale_bits(block: &[u8; 210]) -> u16 {
        u16::from_le_bytes([block[208], block[209]])
    }
    #[inline(always)]
    fn dots<S: Simd>(s: S, blocks: [&[u8; 210]; QUAD_ROWS], acts: &[i8; BLOCK]) -> [S::Sums; QUAD_ROWS] {
        s.dots_q6(blocks, acts)
    }
    #[inline(always)]
    fn unpack<S: Simd>(s: S, block: &[u8; 210], r: usize, runs: &mut [[[i8; RUN]; LANES]]) {
        let (low, rest) = block.split_at(128);
        let halves = low.as_chunks::<64>().0.iter().zip(rest.as_chunks::<32>().0);
        for ((low, high), runs) in halves.zip(runs.chunks_exact_mut(4)) {
            let mut codes = [[0; LANES]; 8];
            s.unpack_q6(low, high, &mut codes);
            for (run, codes) in runs.iter_mut().zip(codes.as_flattened().as_chunks::<RUN>().0) {
                run[r] = bytemuck::cast(*codes);
            }
        }
    }
    #[inline(always)]
    fn group_scales(block: &[u8; 210]) -> Option<&[u8; RUN]> {
        block[176..].first_chunk()
    }
}
