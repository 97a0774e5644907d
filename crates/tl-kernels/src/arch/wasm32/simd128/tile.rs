//! Tiles by WASM SIMD128: a chunk of 32 rows is eight vectors of four rows.
//!
//! Products stand in 16-bit lanes; 64 of at most 3 * 127 = 381 are 24,384: far from 32,767.

use std::arch::wasm32::*;

use super::Simd128;
use super::registers::vector;
use crate::simd::{CHUNKS, Simd, TILE, TileBlock, TileSimd, TokenBlock};

/// Rows in a vector.
const ROWS: usize = 4;

impl TileSimd for Simd128 {
    #[inline(always)]
    fn tile_block<const T: usize>(self, block: &TileBlock, tokens: &[TokenBlock<'_>; T], acc: &mut [[f32; TILE]; T]) {
        let mut sums = [[0; TILE]; T];
        for g in 0..TILE / ROWS {
            // Rows 0 and 1 of the four, rows 2 and 3.
            let mut totals = [[i16x8_splat(0); 2]; T];
            for c in 0..CHUNKS {
                let fields = fields(block, c, g);
                for j in 0..T {
                    for f in 0..4 {
                        let acts = broadcast(&tokens[j], c, f);
                        totals[j][0] = i16x8_add(totals[j][0], i16x8_extmul_low_i8x16(fields[f], acts));
                        totals[j][1] = i16x8_add(totals[j][1], i16x8_extmul_high_i8x16(fields[f], acts));
                    }
                }
            }
            for j in 0..T {
                let [low, high] = totals[j];
                let (low, high) = (i32x4_extadd_pairwise_i16x8(low), i32x4_extadd_pairwise_i16x8(high));
                let all = i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(low, high), i32x4_shuffle::<1, 3, 5, 7>(low, high));
                sums[j].as_chunks_mut::<ROWS>().0[g] = [
                    i32x4_extract_lane::<0>(all),
                    i32x4_extract_lane::<1>(all),
                    i32x4_extract_lane::<2>(all),
                    i32x4_extract_lane::<3>(all),
                ];
            }
        }
        for j in 0..T {
            self.add_tile_sums(block, &sums[j], &tokens[j], &mut acc[j]);
        }
    }
}

/// The fields of the four rows from `4 g` on, of chunk `c`, as codes 0..=3.
#[inline(always)]
fn fields(block: &TileBlock, c: usize, g: usize) -> [v128; 4] {
    let three = u8x16_splat(3);
    let all = vector(&block.codes[c].as_chunks::<16>().0[g]);
    [v128_and(all, three), v128_and(u8x16_shr(all, 2), three), v128_and(u8x16_shr(all, 4), three), u8x16_shr(all, 6)]
}

/// The four activations that meet field `f` of chunk `c`, in every lane.
#[inline(always)]
fn broadcast(token: &TokenBlock<'_>, c: usize, f: usize) -> v128 {
    let quad = &token.codes.as_chunks::<4>().0[16 * f + c];
    i32x4_splat(i32::from_le_bytes(quad.map(i8::cast_unsigned)))
}
