//! Products of Q8_0, Q6_K and Q2_0 blocks with INT8 activations, with NEON.
//!
//! ```text
//! with dotprod   sdot: four products added to a 32-bit lane
//! without        smull, smlal: products in 16-bit lanes
//!                  Q8_0: two to a lane, each at most 128 * 127            32,512 of 32,767
//!                  Q6_K: weights -32..=31, eight to a lane, 32 * 127      32,512 of 32,767
//! ```
//!                  Q2_0: weights -1..=2, eight to a lane, 2 * 127          2,032 of 32,767
//! A group of Q6_K is sixteen weights, so one register: four groups become the lanes that the four scales multiply.

use std::arch::aarch64::*;

use ternary_core::BLOCK;

use super::Neon;
use super::registers::sdot;

/// The products of Q8_0 blocks: see `Simd::dots_q8`.
#[inline(always)]
pub(super) fn dots_q8<const DOTPROD: bool>(
    _level: Neon<DOTPROD>,
    blocks: [&[u8; 34]; 4],
    acts: &[i8; 32],
) -> [int32x4_t; 4] {
    // SAFETY: the level is the proof that the machine has the instructions; each load reads half of the 32 activations or
    // of the 32 bytes behind the scale.
    unsafe {
        let x = [vld1q_s8(acts.as_ptr()), vld1q_s8(acts[16..].as_ptr())];
        let mut sums = [vdupq_n_s32(0); 4];
        for (sum, block) in sums.iter_mut().zip(blocks) {
            let w = [vld1q_s8(block[2..].as_ptr().cast()), vld1q_s8(block[18..].as_ptr().cast())];
            *sum = if DOTPROD {
                sdot(sdot(*sum, w[0], x[0]), w[1], x[1])
            } else {
                vpadalq_s16(vpaddlq_s16(products(w[0], x[0])), products(w[1], x[1]))
            };
        }
        sums
    }
}

/// The products of Q2_0 blocks: see `Simd::dots_q2`.
#[inline(always)]
pub(super) fn dots_q2<const DOTPROD: bool>(
    _level: Neon<DOTPROD>,
    blocks: [&[u8; 18]; 4],
    acts: &[i8; 96],
) -> [int32x4_t; 4] {
    // SAFETY: the level is the proof that the machine has the instructions; each load reads sixteen activations, the
    // sixteen bytes behind a scale, or the sixteen of an array.
    unsafe {
        let x = [
            vld1q_s8(acts.as_ptr()),
            vld1q_s8(acts[16..].as_ptr()),
            vld1q_s8(acts[64..].as_ptr()),
            vld1q_s8(acts[80..].as_ptr()),
        ];
        // Each byte four times, for the four weights in it, and the shifts that bring each of them down.
        let fours = vld1q_u8([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3].as_ptr());
        let down = vld1q_s8([0, -2, -4, -6, 0, -2, -4, -6, 0, -2, -4, -6, 0, -2, -4, -6].as_ptr());
        let mut sums = [vdupq_n_s32(0); 4];
        for (sum, block) in sums.iter_mut().zip(blocks) {
            let packed = vld1q_u8(block[2..].as_ptr());
            let mut pairs = vdupq_n_s16(0);
            for (part, x) in x.into_iter().enumerate() {
                let bytes = vqtbl1q_u8(packed, vaddq_u8(fours, vdupq_n_u8(4 * part as u8)));
                let codes = vandq_u8(vshlq_u8(bytes, down), vdupq_n_u8(3));
                let w = vsubq_s8(vreinterpretq_s8_u8(codes), vdupq_n_s8(1));
                if DOTPROD {
                    *sum = sdot(*sum, w, x);
                } else {
                    pairs = vaddq_s16(pairs, products(w, x));
                }
            }
            if !DOTPROD {
                *sum = vpaddlq_s16(pairs);
            }
        }
        sums
    }
}

/// The products of Q6_K blocks: see `Simd::dots_q6`.
#[inline(always)]
pub(super) fn dots_q6<const DOTPROD: bool>(
    level: Neon<DOTPROD>,
    blocks: [&[u8; 210]; 4],
    acts: &[i8; BLOCK],
) -> [int32x4_t; 4] {
    // SAFETY: the level is the proof that the machine has the instructions; the loads read sixteen activations, and eight
    // of the sixteen scales.
    unsafe {
        let mut sums = [vdupq_n_s32(0); 4];
        for half in 0..2 {
            // Group 2 k + p of this half meets these sixteen.
            let mut x = [vdupq_n_s8(0); 8];
            for (g, x) in x.iter_mut().enumerate() {
                *x = vld1q_s8(acts[64 * (g / 2) + 32 * half + 16 * (g % 2)..][..16].as_ptr());
            }
            for (sum, block) in sums.iter_mut().zip(blocks) {
                let (low, rest) = block.split_at(128);
                let (high, scales) = rest.split_at(64);
                let w = q6_weights(&low.as_chunks().0[half], &high.as_chunks().0[half]);
                let scales = vmovl_s8(vld1_s8(scales[8 * half..][..8].as_ptr().cast()));
                let first = four_groups(level, [w[0], w[1], w[2], w[3]], [x[0], x[1], x[2], x[3]]);
                let last = four_groups(level, [w[4], w[5], w[6], w[7]], [x[4], x[5], x[6], x[7]]);
                *sum = vmlaq_s32(*sum, first, vmovl_s16(vget_low_s16(scales)));
                *sum = vmlaq_s32(*sum, last, vmovl_high_s16(scales));
            }
        }
        sums
    }
}

/// The weights of half a Q6_K block without their scales, sixteen in natural order in each register. See
/// `Simd::unpack_q6`.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn q6_weights(low: &[u8; 64], high: &[u8; 32]) -> [int8x16_t; 8] {
    let (bias, six_bits, top) = (vdupq_n_u8(32), vdupq_n_u8(63), vdupq_n_u8(48));
    let mut weights = [vdupq_n_s8(0); 8];
    for p in 0..2 {
        // SAFETY: each load reads sixteen of the bytes.
        let (even, odd, high) = unsafe {
            (
                vld1q_u8(low[16 * p..][..16].as_ptr()),
                vld1q_u8(low[32 + 16 * p..][..16].as_ptr()),
                vld1q_u8(high[16 * p..][..16].as_ptr()),
            )
        };
        // `sli` keeps four bits of its first operand and puts the second one above them.
        let quarters = [
            vandq_u8(vsliq_n_u8::<4>(even, high), six_bits),
            vandq_u8(vsliq_n_u8::<4>(odd, vshrq_n_u8::<2>(high)), six_bits),
            vorrq_u8(vshrq_n_u8::<4>(even), vandq_u8(high, top)),
            vsliq_n_u8::<4>(vshrq_n_u8::<4>(odd), vshrq_n_u8::<6>(high)),
        ];
        for (k, quarter) in quarters.into_iter().enumerate() {
            weights[2 * k + p] = vreinterpretq_s8_u8(vsubq_u8(quarter, bias));
        }
    }
    weights
}

/// The sum of the sixteen products of each of four groups, for weights in -32..=31.
#[inline(always)]
fn four_groups<const DOTPROD: bool>(_level: Neon<DOTPROD>, w: [int8x16_t; 4], x: [int8x16_t; 4]) -> int32x4_t {
    // SAFETY: the level is the proof that the machine has the instructions.
    unsafe {
        if DOTPROD {
            let zero = vdupq_n_s32(0);
            let first = vpaddq_s32(sdot(zero, w[0], x[0]), sdot(zero, w[1], x[1]));
            vpaddq_s32(first, vpaddq_s32(sdot(zero, w[2], x[2]), sdot(zero, w[3], x[3])))
        } else {
            // Two products to a lane, then four, then eight of at most 32 * 127 = 4,064: 32,512.
            let first = vpaddq_s16(products(w[0], x[0]), products(w[1], x[1]));
            let last = vpaddq_s16(products(w[2], x[2]), products(w[3], x[3]));
            vpaddlq_s16(vpaddq_s16(first, last))
        }
    }
}

/// `a[i] b[i] + a[8 + i] b[8 + i]`, which fits where no value of `b` is -128: at most 2 * 128 * 127 = 32,512.
#[target_feature(enable = "neon")]
#[inline]
fn products(a: int8x16_t, b: int8x16_t) -> int16x8_t {
    vmlal_high_s8(vmull_s8(vget_low_s8(a), vget_low_s8(b)), a, b)
}
