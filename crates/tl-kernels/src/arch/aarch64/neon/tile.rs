//! Tiles by NEON: a chunk of 32 rows is eight registers of four rows.
//!
//! ```text
//! with dotprod   sdot: four products of a dword of codes and a dword of activations, added to a 32-bit lane
//! without        smlal: products in 16-bit lanes; 64 of at most 3 * 127 = 381 are 24,384: far from 32,767
//! ```

use std::arch::aarch64::*;

use super::Neon;
use super::registers::{sdot, splat_quad};
use crate::simd::{CHUNKS, Simd, TILE, TileBlock, TileSimd, TokenBlock};

/// Rows in a register.
const ROWS: usize = 4;

impl<const DOTPROD: bool> TileSimd for Neon<DOTPROD> {
    #[inline(always)]
    fn tile_block<const T: usize>(self, block: &TileBlock, tokens: &[TokenBlock<'_>; T], acc: &mut [[f32; TILE]; T]) {
        let mut sums = [[0; TILE]; T];
        // SAFETY: `self` is the proof that the machine has the instructions these functions are compiled for.
        unsafe {
            if DOTPROD {
                sums_dotprod(block, tokens, &mut sums);
            } else {
                sums_multiply(block, tokens, &mut sums);
            }
        }
        for j in 0..T {
            self.add_tile_sums(block, &sums[j], &tokens[j], &mut acc[j]);
        }
    }
}

/// The fields of the four rows from `4 g` on, of chunk `c`, as codes 0..=3.
#[target_feature(enable = "neon")]
#[inline]
fn fields(block: &TileBlock, c: usize, g: usize) -> [int8x16_t; 4] {
    let three = vdupq_n_u8(3);
    let rows = &block.codes[c].as_chunks::<16>().0[g];
    // SAFETY: the load reads the sixteen bytes of an array.
    let all = unsafe { vld1q_u8(rows.as_ptr()) };
    [
        vreinterpretq_s8_u8(vandq_u8(all, three)),
        vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8::<2>(all), three)),
        vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8::<4>(all), three)),
        vreinterpretq_s8_u8(vshrq_n_u8::<6>(all)),
    ]
}

/// The four activations that meet field `f` of chunk `c`, in every lane.
#[target_feature(enable = "neon")]
#[inline]
fn broadcast(token: &TokenBlock<'_>, c: usize, f: usize) -> int8x16_t {
    splat_quad(token.codes.as_chunks::<4>().0[16 * f + c])
}

#[target_feature(enable = "neon,dotprod")]
#[inline]
fn sums_dotprod<const T: usize>(block: &TileBlock, tokens: &[TokenBlock<'_>; T], sums: &mut [[i32; TILE]; T]) {
    for g in 0..TILE / ROWS {
        let mut totals = [vdupq_n_s32(0); T];
        for c in 0..CHUNKS {
            let fields = fields(block, c, g);
            for j in 0..T {
                for f in 0..4 {
                    totals[j] = sdot(totals[j], fields[f], broadcast(&tokens[j], c, f));
                }
            }
        }
        for j in 0..T {
            let out = &mut sums[j].as_chunks_mut::<ROWS>().0[g];
            // SAFETY: the store writes the four numbers of an array.
            unsafe { vst1q_s32(out.as_mut_ptr(), totals[j]) };
        }
    }
}

#[target_feature(enable = "neon")]
#[inline]
fn sums_multiply<const T: usize>(block: &TileBlock, tokens: &[TokenBlock<'_>; T], sums: &mut [[i32; TILE]; T]) {
    for g in 0..TILE / ROWS {
        // Rows 0 and 1 of the four, rows 2 and 3.
        let mut totals = [[vdupq_n_s16(0); 2]; T];
        for c in 0..CHUNKS {
            let fields = fields(block, c, g);
            for j in 0..T {
                for f in 0..4 {
                    let acts = broadcast(&tokens[j], c, f);
                    totals[j][0] = vmlal_s8(totals[j][0], vget_low_s8(fields[f]), vget_low_s8(acts));
                    totals[j][1] = vmlal_high_s8(totals[j][1], fields[f], acts);
                }
            }
        }
        for j in 0..T {
            let [low, high] = totals[j];
            let out = &mut sums[j].as_chunks_mut::<ROWS>().0[g];
            // SAFETY: the store writes the four numbers of an array.
            unsafe { vst1q_s32(out.as_mut_ptr(), vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high))) };
        }
    }
}
