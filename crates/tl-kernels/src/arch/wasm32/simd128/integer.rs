//! Products of Q8_0, Q6_K and Q2_0 blocks with INT8 activations, with WASM SIMD128.
//!
//! Two products share a 16-bit lane. For Q8_0 they are at most 2 * 128 * 127 = 32,512 of 32,767, for the weights -32..=31 of
//! Q6_K 2 * 32 * 127 = 8,128; the group's scale then multiplies pairs of lanes in 32 bits. Eight products of Q2_0 share one:
//! 8 * 2 * 127 = 2,032.

use std::arch::wasm32::*;

use ternary_core::BLOCK;

use super::registers::vector;
use crate::simd::LANES;

/// The products of Q8_0 blocks: see `Simd::dots_q8`.
#[inline(always)]
pub(super) fn dots_q8(blocks: [&[u8; 34]; 4], acts: &[i8; 32]) -> [v128; 4] {
    let (x, _) = acts.as_chunks::<16>();
    let mut sums = [i32x4_splat(0); 4];
    for (sum, block) in sums.iter_mut().zip(blocks) {
        for (w, x) in block[2..].as_chunks::<16>().0.iter().zip(x) {
            *sum = i32x4_add(*sum, i32x4_extadd_pairwise_i16x8(products(vector(w), vector(x))));
        }
    }
    sums
}

/// The products of Q2_0 blocks: see `Simd::dots_q2`.
#[inline(always)]
pub(super) fn dots_q2(blocks: [&[u8; 18]; 4], acts: &[i8; 96]) -> [v128; 4] {
    let (x, _) = acts.as_chunks::<16>();
    // Each byte four times, for the four weights in it.
    let fours = u8x16(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    // Two of four codes lie in the low half of their byte, two are moved there; every second one is then four times too
    // large, which a look-up of the weight mends.
    let (high, fields) = (u32x4_splat(0xffff_0000), u16x8_splat(0x0c03));
    let weight = i8x16(-1, 0, 1, 2, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0);
    let mut sums = [i32x4_splat(0); 4];
    for (sum, block) in sums.iter_mut().zip(blocks) {
        let packed = vector(block[2..].first_chunk::<16>().expect("sixteen bytes follow the scale"));
        let mut pairs = i16x8_splat(0);
        for (part, x) in [0, 1, 4, 5].into_iter().enumerate().map(|(part, run)| (part, &x[run])) {
            let bytes = u8x16_swizzle(packed, u8x16_add(fours, u8x16_splat(4 * part as u8)));
            let nibbles = v128_bitselect(u16x8_shr(bytes, 4), bytes, high);
            let w = u8x16_swizzle(weight, v128_and(nibbles, fields));
            pairs = i16x8_add(pairs, products(w, vector(x)));
        }
        *sum = i32x4_extadd_pairwise_i16x8(pairs);
    }
    sums
}

/// The products of Q6_K blocks: see `Simd::dots_q6`.
#[inline(always)]
pub(super) fn dots_q6(blocks: [&[u8; 210]; 4], acts: &[i8; BLOCK]) -> [v128; 4] {
    let (x, _) = acts.as_chunks::<LANES>();
    let mut sums = [i32x4_splat(0); 4];
    for (sum, block) in sums.iter_mut().zip(blocks) {
        let (low, rest) = block.split_at(128);
        let (high, scales) = rest.split_at(64);
        for half in 0..2 {
            let weights = q6_weights(&low.as_chunks().0[half], &high.as_chunks().0[half]);
            for (g, w) in weights.into_iter().enumerate() {
                // Group 2 k + p of this half.
                let x = vector(&x[4 * (g / 2) + 2 * half + g % 2]);
                let scale = i16x8_splat(i16::from(scales[8 * half + g].cast_signed()));
                *sum = i32x4_add(*sum, i32x4_dot_i16x8(products(w, x), scale));
            }
        }
    }
    sums
}

/// The weights of half a Q6_K block without their scales, sixteen in natural order in each vector. See
/// `Simd::unpack_q6`.
#[inline(always)]
pub(super) fn q6_weights(low: &[u8; 64], high: &[u8; 32]) -> [v128; 8] {
    let (bias, nibble, top) = (u8x16_splat(32), u8x16_splat(15), u8x16_splat(48));
    let ((low, _), (high, _)) = (low.as_chunks::<16>(), high.as_chunks::<16>());
    let mut weights = [bias; 8];
    for p in 0..2 {
        let (even, odd, high) = (vector(&low[p]), vector(&low[2 + p]), vector(&high[p]));
        // Shifts of words: the bits that cross over from a neighbouring byte are masked out.
        let quarters = [
            (even, i16x8_shl(high, 4)),
            (odd, i16x8_shl(high, 2)),
            (u16x8_shr(even, 4), high),
            (u16x8_shr(odd, 4), u16x8_shr(high, 2)),
        ];
        for (k, (low, high)) in quarters.into_iter().enumerate() {
            let code = v128_or(v128_and(low, nibble), v128_and(high, top));
            weights[2 * k + p] = i8x16_sub(code, bias);
        }
    }
    weights
}

/// `a[i] b[i] + a[8 + i] b[8 + i]` in 16 bits.
#[inline(always)]
fn products(a: v128, b: v128) -> v128 {
    i16x8_add(i16x8_extmul_low_i8x16(a, b), i16x8_extmul_high_i8x16(a, b))
}
