//! Vectors of sixteen f32, ternary blocks and integer products with NEON.

use std::arch::aarch64::*;
use std::arch::asm;

use half::f16;
use ternary_core::BLOCK;

use super::registers::{dot_four, leading_trits, sdot, splat_quad, triple};
use super::{Neon, integer};
use crate::arch::methods::vector_methods;
use crate::simd::{Float, Kernel, LANES, PatchShape, Simd, TableSimd};

/// Elements 4 k .. 4 k + 4 at k.
type F32x16 = [float32x4_t; 4];

/// Elements 4 k .. 4 k + 4 at k.
type I32x16 = [int32x4_t; 4];

/// Places 16 k .. 16 k + 16 of the field order at k.
type Codes = [uint8x16_t; BLOCK / 16];

impl<const DOTPROD: bool> Float for Neon<DOTPROD> {
    type F = F32x16;

    vector_methods! {
        fn splat(self, x: f32) -> F32x16 {
            [vdupq_n_f32(x); 4]
        }
        fn add(self, a: F32x16, b: F32x16) -> F32x16 {
            [vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1]), vaddq_f32(a[2], b[2]), vaddq_f32(a[3], b[3])]
        }
        fn sub(self, a: F32x16, b: F32x16) -> F32x16 {
            [vsubq_f32(a[0], b[0]), vsubq_f32(a[1], b[1]), vsubq_f32(a[2], b[2]), vsubq_f32(a[3], b[3])]
        }
        fn mul(self, a: F32x16, b: F32x16) -> F32x16 {
            [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1]), vmulq_f32(a[2], b[2]), vmulq_f32(a[3], b[3])]
        }
        fn div(self, a: F32x16, b: F32x16) -> F32x16 {
            [vdivq_f32(a[0], b[0]), vdivq_f32(a[1], b[1]), vdivq_f32(a[2], b[2]), vdivq_f32(a[3], b[3])]
        }
        fn fma(self, a: F32x16, b: F32x16, c: F32x16) -> F32x16 {
            [
                vfmaq_f32(c[0], a[0], b[0]),
                vfmaq_f32(c[1], a[1], b[1]),
                vfmaq_f32(c[2], a[2], b[2]),
                vfmaq_f32(c[3], a[3], b[3]),
            ]
        }
        fn max(self, a: F32x16, b: F32x16) -> F32x16 {
            [greater(a[0], b[0]), greater(a[1], b[1]), greater(a[2], b[2]), greater(a[3], b[3])]
        }
        fn min(self, a: F32x16, b: F32x16) -> F32x16 {
            [less(a[0], b[0]), less(a[1], b[1]), less(a[2], b[2]), less(a[3], b[3])]
        }
        fn round(self, a: F32x16) -> F32x16 {
            [vrndnq_f32(a[0]), vrndnq_f32(a[1]), vrndnq_f32(a[2]), vrndnq_f32(a[3])]
        }
        fn pow2(self, a: F32x16) -> F32x16 {
            [exponent(a[0]), exponent(a[1]), exponent(a[2]), exponent(a[3])]
        }
    }
}

impl<const DOTPROD: bool> Simd for Neon<DOTPROD> {
    const PATCH: PatchShape = PatchShape::Rows2Tokens3;
    type Codes = Codes;
    /// Four partial sums of a row.
    type Sums = int32x4_t;
    type I = I32x16;
    type Quad = float32x4_t;
    type Lookup = Self;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn compiled_for_neon<S: Simd, K: Kernel>(s: S, kernel: K) -> K::Output {
            kernel.run(s)
        }
        #[target_feature(enable = "neon,dotprod")]
        fn compiled_for_dotprod<S: Simd, K: Kernel>(s: S, kernel: K) -> K::Output {
            kernel.run(s)
        }
        // SAFETY: `self` is the proof that the machine has these features.
        unsafe { if DOTPROD { compiled_for_dotprod(self, kernel) } else { compiled_for_neon(self, kernel) } }
    }

    #[inline(always)]
    fn lookup(self) -> Self {
        self
    }
    #[inline(always)]
    fn prefetch<T>(self, near: &T, distance: usize) {
        let line = std::ptr::from_ref(near).cast::<u8>().wrapping_add(distance);
        // SAFETY: a prefetch never faults, whatever the address, and changes no register. (The intrinsic is unstable.)
        unsafe { asm!("prfm pldl1keep, [{}]", in(reg) line, options(readonly, nostack, preserves_flags)) }
    }

    #[inline(always)]
    fn load_half(self, x: &[f16; LANES]) -> F32x16 {
        self.load_f16(bytemuck::cast_ref(x))
    }
    #[inline(always)]
    fn dots_q8(self, blocks: [&[u8; 34]; 4], acts: &[i8; 32]) -> [int32x4_t; 4] {
        integer::dots_q8(self, blocks, acts)
    }
    #[inline(always)]
    fn dots_q2(self, blocks: [&[u8; 18]; 4], acts: &[i8; 96]) -> [int32x4_t; 4] {
        integer::dots_q2(self, blocks, acts)
    }
    #[inline(always)]
    fn dots_q6(self, blocks: [&[u8; 210]; 4], acts: &[i8; BLOCK]) -> [int32x4_t; 4] {
        integer::dots_q6(self, blocks, acts)
    }

    vector_methods! {
        fn load(self, x: &[f32; LANES]) -> F32x16 {
            let (parts, _) = x.as_chunks::<4>();
            [0, 1, 2, 3].map(|k| vld1q_f32(parts[k].as_ptr()))
        }
        fn store(self, a: F32x16, out: &mut [f32; LANES]) {
            for (out, a) in out.as_chunks_mut::<4>().0.iter_mut().zip(a) {
                vst1q_f32(out.as_mut_ptr(), a);
            }
        }
        fn load_f32(self, bytes: &[u8; 4 * LANES]) -> F32x16 {
            let (parts, _) = bytes.as_chunks::<16>();
            [0, 1, 2, 3].map(|k| vreinterpretq_f32_u8(vld1q_u8(parts[k].as_ptr())))
        }
        fn load_f16(self, bytes: &[u8; 2 * LANES]) -> F32x16 {
            let (parts, _) = bytes.as_chunks::<16>();
            let [low, high] = [0, 1].map(|k| vreinterpretq_f16_u8(vld1q_u8(parts[k].as_ptr())));
            [
                vcvt_f32_f16(vget_low_f16(low)),
                vcvt_high_f32_f16(low),
                vcvt_f32_f16(vget_low_f16(high)),
                vcvt_high_f32_f16(high),
            ]
        }
        fn load_bf16(self, bytes: &[u8; 2 * LANES]) -> F32x16 {
            let (parts, _) = bytes.as_chunks::<16>();
            let [low, high] = [0, 1].map(|k| vreinterpretq_u16_u8(vld1q_u8(parts[k].as_ptr())));
            [
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(low))),
                vreinterpretq_f32_u32(vshll_high_n_u16::<16>(low)),
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vget_low_u16(high))),
                vreinterpretq_f32_u32(vshll_high_n_u16::<16>(high)),
            ]
        }
        fn splat_f16(self, bits: u16) -> F32x16 {
            [vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(bits))); 4]
        }
        fn load_i8(self, bytes: &[u8; LANES]) -> F32x16 {
            let bytes = vreinterpretq_s8_u8(vld1q_u8(bytes.as_ptr()));
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ]
        }
        fn load_i32(self, x: &[i32; LANES]) -> F32x16 {
            let (parts, _) = x.as_chunks::<4>();
            [
                vcvtq_f32_s32(vld1q_s32(parts[0].as_ptr())),
                vcvtq_f32_s32(vld1q_s32(parts[1].as_ptr())),
                vcvtq_f32_s32(vld1q_s32(parts[2].as_ptr())),
                vcvtq_f32_s32(vld1q_s32(parts[3].as_ptr())),
            ]
        }
        fn reduce(self, a: F32x16) -> f32 {
            let four = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }

        fn unpack_q6(self, low: &[u8; 64], high: &[u8; 32], codes: &mut [[u8; LANES]; 8]) {
            for (codes, weights) in codes.iter_mut().zip(integer::q6_weights(low, high)) {
                vst1q_u8(codes.as_mut_ptr(), vreinterpretq_u8_s8(weights));
            }
        }

        fn unpack_tq2(self, packed: &[u8; BLOCK / 4]) -> Codes {
            let mask = vdupq_n_u8(3);
            let mut codes = [mask; BLOCK / 16];
            for (q, bytes) in packed.as_chunks::<16>().0.iter().enumerate() {
                let bytes = vld1q_u8(bytes.as_ptr());
                codes[q] = vandq_u8(bytes, mask);
                codes[4 + q] = vandq_u8(vshrq_n_u8::<2>(bytes), mask);
                codes[8 + q] = vandq_u8(vshrq_n_u8::<4>(bytes), mask);
                codes[12 + q] = vshrq_n_u8::<6>(bytes);
            }
            codes
        }
        fn unpack_tq1(self, packed: &[u8; 52]) -> Codes {
            let fractions = tq1_fractions(packed);
            let mut codes = fractions;
            for (k, code) in codes.iter_mut().enumerate() {
                *code = leading_trits(fractions[natural(k)]);
            }
            codes
        }
        fn load_codes(self, codes: &[u8; BLOCK]) -> Codes {
            let mut loaded = [vdupq_n_u8(0); BLOCK / 16];
            let (parts, _) = codes.as_chunks::<16>();
            for (k, code) in loaded.iter_mut().enumerate() {
                *code = vld1q_u8(parts[natural(k)].as_ptr());
            }
            loaded
        }
        fn zero_sums(self) -> int32x4_t {
            vdupq_n_s32(0)
        }
        fn no_quads(self, _x_sum: i32) -> I32x16 {
            [vdupq_n_s32(0); 4]
        }
        fn dot_quads(self, acc: I32x16, w: &[[i8; 4]; LANES], x: [i8; 4]) -> I32x16 {
            let ((w, _), x) = (w.as_chunks::<4>(), splat_quad(x));
            [
                dot_four(self, acc[0], &w[0], x),
                dot_four(self, acc[1], &w[1], x),
                dot_four(self, acc[2], &w[2], x),
                dot_four(self, acc[3], &w[3], x),
            ]
        }
        fn mul_add_i32(self, a: I32x16, b: &[i32; LANES], c: I32x16) -> I32x16 {
            let (b, _) = b.as_chunks::<4>();
            [
                vmlaq_s32(c[0], a[0], vld1q_s32(b[0].as_ptr())),
                vmlaq_s32(c[1], a[1], vld1q_s32(b[1].as_ptr())),
                vmlaq_s32(c[2], a[2], vld1q_s32(b[2].as_ptr())),
                vmlaq_s32(c[3], a[3], vld1q_s32(b[3].as_ptr())),
            ]
        }
        fn to_f32(self, a: I32x16) -> F32x16 {
            [vcvtq_f32_s32(a[0]), vcvtq_f32_s32(a[1]), vcvtq_f32_s32(a[2]), vcvtq_f32_s32(a[3])]
        }
        fn sum_of(self, total: i32) -> int32x4_t {
            vsetq_lane_s32::<0>(total, vdupq_n_s32(0))
        }
        fn dot_codes(self, codes: &Codes, acts: &[i8; BLOCK]) -> int32x4_t {
            let (acts, _) = acts.as_chunks::<16>();
            if DOTPROD {
                let mut sums = vdupq_n_s32(0);
                for (codes, acts) in codes.iter().zip(acts) {
                    sums = sdot(sums, vreinterpretq_s8_u8(*codes), vld1q_s8(acts.as_ptr()));
                }
                return sums;
            }
            // A product is at most 3 * 127 = 381, thirty-two of them 12192: far from 32767.
            let mut pairs = vdupq_n_s16(0);
            for (codes, acts) in codes.iter().zip(acts) {
                let (codes, acts) = (vreinterpretq_s8_u8(*codes), vld1q_s8(acts.as_ptr()));
                pairs = vmlal_s8(pairs, vget_low_s8(codes), vget_low_s8(acts));
                pairs = vmlal_high_s8(pairs, codes, acts);
            }
            vpaddlq_s16(pairs)
        }
        fn accumulate(
            self,
            acc: float32x4_t,
            dots: [int32x4_t; 4],
            act_sum: i32,
            w_scales: float32x4_t,
            a_scale: f32,
        ) -> float32x4_t {
            let [a, b, c, d] = dots;
            let totals = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
            let ints = vcvtq_f32_s32(vsubq_s32(totals, vdupq_n_s32(act_sum)));
            vfmaq_f32(acc, vmulq_n_f32(w_scales, a_scale), ints)
        }
        fn quad(self, x: [f32; 4]) -> float32x4_t {
            vld1q_f32(x.as_ptr())
        }
        fn quad_values(self, a: float32x4_t) -> [f32; 4] {
            let mut x = [0.0; 4];
            vst1q_f32(x.as_mut_ptr(), a);
            x
        }
        fn quad_f16(self, bits: [u16; 4]) -> float32x4_t {
            vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(bits.as_ptr())))
        }
    }
}

// Token tables have not been measured with NEON.
impl<const DOTPROD: bool> TableSimd for Neon<DOTPROD> {}

/// Which sixteen codes in natural order are places 16 k .. 16 k + 16 of the field order: 64 n + 32 h + m holds
/// element 128 h + 32 n + m.
#[inline(always)]
const fn natural(k: usize) -> usize {
    let (field, half, part) = (k / 4, k / 2 % 2, k % 2);
    8 * half + 2 * field + part
}

/// `if a > b { a } else { b }`
#[target_feature(enable = "neon")]
#[inline]
fn greater(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vbslq_f32(vcgtq_f32(a, b), a, b)
}

/// `if a < b { a } else { b }`
#[target_feature(enable = "neon")]
#[inline]
fn less(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vbslq_f32(vcltq_f32(a, b), a, b)
}

/// 2 to the power of integral `a`.
#[target_feature(enable = "neon")]
#[inline]
fn exponent(a: float32x4_t) -> float32x4_t {
    let biased = vaddq_s32(vcvtq_s32_f32(a), vdupq_n_s32(127));
    vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
}

/// The fractions of a TQ1_0 block whose leading trits are the codes, in natural order: bytes 0..32 times 3^n,
/// bytes 32..48 times 3^n, bytes 48..52 times 1, 3, 9 and 27.
#[target_feature(enable = "neon")]
#[inline]
fn tq1_fractions(packed: &[u8; 52]) -> Codes {
    let (parts, last) = packed.as_chunks::<16>();
    // SAFETY: each load reads the sixteen bytes of an array.
    let [mut a, mut b, mut c] = [0, 1, 2].map(|k| unsafe { vld1q_u8(parts[k].as_ptr()) });
    let mut fractions = [a; BLOCK / 16];
    for n in 0..5 {
        (fractions[2 * n], fractions[2 * n + 1], fractions[10 + n]) = (a, b, c);
        (a, b, c) = (triple(a), triple(b), triple(c));
    }
    let once = u32::from_le_bytes([last[0], last[1], last[2], last[3]]);
    let mut of_lane = [once; 4];
    for (lane, factor) in of_lane.iter_mut().zip([1, 3, 9, 27u8]) {
        *lane = u32::from_le_bytes(once.to_le_bytes().map(|byte| byte.wrapping_mul(factor)));
    }
    // SAFETY: the load reads four of four.
    fractions[15] = vreinterpretq_u8_u32(unsafe { vld1q_u32(of_lane.as_ptr()) });
    fractions
}
