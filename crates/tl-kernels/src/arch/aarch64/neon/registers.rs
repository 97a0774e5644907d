//! Functions that the pieces of NEON share: products of bytes and fractions of trits.

use std::arch::aarch64::*;
use std::arch::asm;

use super::Neon;

/// Each byte times 3, mod 256.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn triple(a: uint8x16_t) -> uint8x16_t {
    vaddq_u8(vaddq_u8(a, a), a)
}

/// The trit before the point of 3 times each fraction: 1 from 86 on, 2 from 171 on.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn leading_trits(fractions: uint8x16_t) -> uint8x16_t {
    // A true comparison is 255, that is -1.
    let first = vcgtq_u8(fractions, vdupq_n_u8(85));
    let second = vcgtq_u8(fractions, vdupq_n_u8(170));
    vsubq_u8(vsubq_u8(vdupq_n_u8(0), first), second)
}

/// `sums[i] + a[4 i] * b[4 i] + .. + a[4 i + 3] * b[4 i + 3]`. (The intrinsic is unstable.)
#[target_feature(enable = "neon,dotprod")]
#[inline]
pub(super) fn sdot(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: one instruction of the enabled features, on registers only.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// The quad in every lane.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn splat_quad(x: [i8; 4]) -> int8x16_t {
    vreinterpretq_s8_s32(vdupq_n_s32(i32::from_le_bytes(x.map(i8::cast_unsigned))))
}

/// `acc[r] + w[r][0] x[0] + .. + w[r][3] x[3]`, for a quad x in every lane whose values are in -127..=127.
#[inline(always)]
pub(super) fn dot_four<const DOTPROD: bool>(
    _level: Neon<DOTPROD>,
    acc: int32x4_t,
    w: &[[i8; 4]; 4],
    x: int8x16_t,
) -> int32x4_t {
    // SAFETY: the level is the proof that the machine has the instructions; the load reads the four quads.
    unsafe {
        let w = vld1q_s8(w.as_ptr().cast());
        if DOTPROD {
            return sdot(acc, w, x);
        }
        // A product is at most 128 * 127 = 16,256, a pair of them 32,512: below 32,767.
        let (first, last) = (vmull_s8(vget_low_s8(w), vget_low_s8(x)), vmull_high_s8(w, x));
        vpadalq_s16(acc, vpaddq_s16(first, last))
    }
}
