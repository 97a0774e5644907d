//! Vectors of sixteen f32, ternary blocks and integer products with SIMD128.

use std::arch::wasm32::*;

use half::f16;
use ternary_core::BLOCK;

use super::registers::{dot_four, splat_quad, store, vector};
use super::{Simd128, integer};
use crate::simd::{Float, Kernel, LANES, PatchShape, Simd, TableSimd};

/// Elements 4 k .. 4 k + 4 at k.
type F32x16 = [v128; 4];

/// Elements 4 k .. 4 k + 4 at k.
type I32x16 = [v128; 4];

/// Places 16 k .. 16 k + 16 of the field order at k.
type Codes = [v128; BLOCK / 16];

/// The array `[f(0), f(1), f(2), f(3)]`.
#[inline(always)]
fn each(f: impl Fn(usize) -> v128) -> F32x16 {
    [f(0), f(1), f(2), f(3)]
}

impl Float for Simd128 {
    type F = F32x16;

    #[inline(always)]
    fn splat(self, x: f32) -> F32x16 {
        [f32x4_splat(x); 4]
    }
    #[inline(always)]
    fn add(self, a: F32x16, b: F32x16) -> F32x16 {
        each(|k| f32x4_add(a[k], b[k]))
    }
    #[inline(always)]
    fn sub(self, a: F32x16, b: F32x16) -> F32x16 {
        each(|k| f32x4_sub(a[k], b[k]))
    }
    #[inline(always)]
    fn mul(self, a: F32x16, b: F32x16) -> F32x16 {
        each(|k| f32x4_mul(a[k], b[k]))
    }
    #[inline(always)]
    fn div(self, a: F32x16, b: F32x16) -> F32x16 {
        each(|k| f32x4_div(a[k], b[k]))
    }
    #[inline(always)]
    fn fma(self, a: F32x16, b: F32x16, c: F32x16) -> F32x16 {
        each(|k| fma4(a[k], b[k], c[k]))
    }
    #[inline(always)]
    fn max(self, a: F32x16, b: F32x16) -> F32x16 {
        // The pseudo-maximum of (x, y) is `if x < y { y } else { x }`.
        each(|k| f32x4_pmax(b[k], a[k]))
    }
    #[inline(always)]
    fn min(self, a: F32x16, b: F32x16) -> F32x16 {
        each(|k| f32x4_pmin(b[k], a[k]))
    }
    #[inline(always)]
    fn round(self, a: F32x16) -> F32x16 {
        each(|k| f32x4_nearest(a[k]))
    }
    #[inline(always)]
    fn pow2(self, a: F32x16) -> F32x16 {
        each(|k| i32x4_shl(i32x4_add(i32x4_trunc_sat_f32x4(a[k]), i32x4_splat(127)), 23))
    }
}

impl Simd for Simd128 {
    const PATCH: PatchShape = PatchShape::Rows4Tokens1;
    type Codes = Codes;
    /// Four partial sums of a row.
    type Sums = v128;
    type I = I32x16;
    type Quad = v128;
    type Lookup = Self;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn lookup(self) -> Self {
        self
    }
    #[inline(always)]
    fn prefetch<T>(self, _near: &T, _distance: usize) {}
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> F32x16 {
        let (parts, _) = x.as_chunks::<4>();
        each(|k| vector(&parts[k]))
    }
    #[inline(always)]
    fn store(self, a: F32x16, out: &mut [f32; LANES]) {
        for (out, a) in out.as_chunks_mut::<4>().0.iter_mut().zip(a) {
            *out = floats(a);
        }
    }
    #[inline(always)]
    fn load_f32(self, bytes: &[u8; 4 * LANES]) -> F32x16 {
        let (parts, _) = bytes.as_chunks::<16>();
        each(|k| vector(&parts[k]))
    }
    #[inline(always)]
    fn load_f16(self, bytes: &[u8; 2 * LANES]) -> F32x16 {
        let (parts, _) = bytes.as_chunks::<16>();
        let (low, high) = (vector(&parts[0]), vector(&parts[1]));
        [
            widen_f16(u32x4_extend_low_u16x8(low)),
            widen_f16(u32x4_extend_high_u16x8(low)),
            widen_f16(u32x4_extend_low_u16x8(high)),
            widen_f16(u32x4_extend_high_u16x8(high)),
        ]
    }
    #[inline(always)]
    fn load_half(self, x: &[f16; LANES]) -> F32x16 {
        self.load_f16(bytemuck::cast_ref(x))
    }
    #[inline(always)]
    fn load_bf16(self, bytes: &[u8; 2 * LANES]) -> F32x16 {
        let (parts, _) = bytes.as_chunks::<16>();
        let (low, high) = (vector(&parts[0]), vector(&parts[1]));
        [
            i32x4_shl(u32x4_extend_low_u16x8(low), 16),
            i32x4_shl(u32x4_extend_high_u16x8(low), 16),
            i32x4_shl(u32x4_extend_low_u16x8(high), 16),
            i32x4_shl(u32x4_extend_high_u16x8(high), 16),
        ]
    }
    #[inline(always)]
    fn splat_f16(self, bits: u16) -> F32x16 {
        [widen_f16(u32x4_splat(u32::from(bits))); 4]
    }
    #[inline(always)]
    fn load_i8(self, bytes: &[u8; LANES]) -> F32x16 {
        let bytes = vector(bytes);
        let (low, high) = (i16x8_extend_low_i8x16(bytes), i16x8_extend_high_i8x16(bytes));
        [
            f32x4_convert_i32x4(i32x4_extend_low_i16x8(low)),
            f32x4_convert_i32x4(i32x4_extend_high_i16x8(low)),
            f32x4_convert_i32x4(i32x4_extend_low_i16x8(high)),
            f32x4_convert_i32x4(i32x4_extend_high_i16x8(high)),
        ]
    }
    #[inline(always)]
    fn load_i32(self, x: &[i32; LANES]) -> F32x16 {
        let (parts, _) = x.as_chunks::<4>();
        each(|k| f32x4_convert_i32x4(vector(&parts[k])))
    }
    #[inline(always)]
    fn unpack_q6(self, low: &[u8; 64], high: &[u8; 32], codes: &mut [[u8; LANES]; 8]) {
        for (codes, weights) in codes.iter_mut().zip(integer::q6_weights(low, high)) {
            store(weights, codes);
        }
    }
    #[inline(always)]
    fn reduce(self, a: F32x16) -> f32 {
        let four = f32x4_add(f32x4_add(a[0], a[2]), f32x4_add(a[1], a[3]));
        let two = f32x4_add(four, i32x4_shuffle::<2, 3, 2, 3>(four, four));
        f32x4_extract_lane::<0>(two) + f32x4_extract_lane::<1>(two)
    }

    #[inline(always)]
    fn unpack_tq2(self, packed: &[u8; BLOCK / 4]) -> Codes {
        let mask = u8x16_splat(3);
        let mut codes = [mask; BLOCK / 16];
        for (q, bytes) in packed.as_chunks::<16>().0.iter().enumerate() {
            let bytes = vector(bytes);
            codes[q] = v128_and(bytes, mask);
            codes[4 + q] = v128_and(u16x8_shr(bytes, 2), mask);
            codes[8 + q] = v128_and(u16x8_shr(bytes, 4), mask);
            codes[12 + q] = v128_and(u16x8_shr(bytes, 6), mask);
        }
        codes
    }
    #[inline(always)]
    fn unpack_tq1(self, packed: &[u8; 52]) -> Codes {
        let fractions = tq1_fractions(packed);
        std::array::from_fn(|k| leading_trits(fractions[natural(k)]))
    }
    #[inline(always)]
    fn load_codes(self, codes: &[u8; BLOCK]) -> Codes {
        let (parts, _) = codes.as_chunks::<16>();
        std::array::from_fn(|k| vector(&parts[natural(k)]))
    }
    #[inline(always)]
    fn zero_sums(self) -> v128 {
        i32x4_splat(0)
    }
    #[inline(always)]
    fn no_quads(self, _x_sum: i32) -> I32x16 {
        [i32x4_splat(0); 4]
    }
    #[inline(always)]
    fn dot_quads(self, acc: I32x16, w: &[[i8; 4]; LANES], x: [i8; 4]) -> I32x16 {
        let ((w, _), x) = (w.as_chunks::<4>(), splat_quad(x));
        each(|k| dot_four(acc[k], &w[k], x))
    }
    #[inline(always)]
    fn mul_add_i32(self, a: I32x16, b: &[i32; LANES], c: I32x16) -> I32x16 {
        let (b, _) = b.as_chunks::<4>();
        each(|k| i32x4_add(i32x4_mul(a[k], vector(&b[k])), c[k]))
    }
    #[inline(always)]
    fn to_f32(self, a: I32x16) -> F32x16 {
        each(|k| f32x4_convert_i32x4(a[k]))
    }
    #[inline(always)]
    fn dots_q8(self, blocks: [&[u8; 34]; 4], acts: &[i8; 32]) -> [v128; 4] {
        integer::dots_q8(blocks, acts)
    }
    #[inline(always)]
    fn dots_q2(self, blocks: [&[u8; 18]; 4], acts: &[i8; 96]) -> [v128; 4] {
        integer::dots_q2(blocks, acts)
    }
    #[inline(always)]
    fn dots_q6(self, blocks: [&[u8; 210]; 4], acts: &[i8; BLOCK]) -> [v128; 4] {
        integer::dots_q6(blocks, acts)
    }
    #[inline(always)]
    fn sum_of(self, total: i32) -> v128 {
        i32x4(total, 0, 0, 0)
    }
    #[inline(always)]
    fn dot_codes(self, codes: &Codes, acts: &[i8; BLOCK]) -> v128 {
        // A product is at most 3 * 127 = 381, thirty-two of them 12192: far from 32767.
        let mut pairs = i16x8_splat(0);
        for (&codes, acts) in codes.iter().zip(acts.as_chunks::<16>().0) {
            let acts = vector(acts);
            pairs = i16x8_add(pairs, i16x8_extmul_low_i8x16(codes, acts));
            pairs = i16x8_add(pairs, i16x8_extmul_high_i8x16(codes, acts));
        }
        i32x4_extadd_pairwise_i16x8(pairs)
    }
    #[inline(always)]
    fn accumulate(self, acc: v128, dots: [v128; 4], act_sum: i32, w_scales: v128, a_scale: f32) -> v128 {
        let [a, b, c, d] = dots;
        // [a0 + a2, b0 + b2, a1 + a3, b1 + b3], the same of c and d, then all four.
        let ab = i32x4_add(i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<2, 6, 3, 7>(a, b));
        let cd = i32x4_add(i32x4_shuffle::<0, 4, 1, 5>(c, d), i32x4_shuffle::<2, 6, 3, 7>(c, d));
        let totals = i32x4_add(i32x4_shuffle::<0, 1, 4, 5>(ab, cd), i32x4_shuffle::<2, 3, 6, 7>(ab, cd));
        let ints = f32x4_convert_i32x4(i32x4_sub(totals, i32x4_splat(act_sum)));
        fma4(f32x4_mul(w_scales, f32x4_splat(a_scale)), ints, acc)
    }
    #[inline(always)]
    fn quad(self, x: [f32; 4]) -> v128 {
        vector(&x)
    }
    #[inline(always)]
    fn quad_values(self, a: v128) -> [f32; 4] {
        floats(a)
    }
    #[inline(always)]
    fn quad_f16(self, bits: [u16; 4]) -> v128 {
        let [a, b, c, d] = bits.map(u32::from);
        widen_f16(u32x4(a, b, c, d))
    }
}

// Token tables have not been measured with SIMD128.
impl TableSimd for Simd128 {}

/// The four f32 of a vector.
#[inline(always)]
fn floats(a: v128) -> [f32; 4] {
    let mut x = [0.0f32; 4];
    store(a, &mut x);
    x
}

/// `a * b + c` with one rounding.
#[inline(always)]
fn fma4(a: v128, b: v128, c: v128) -> v128 {
    let high = |x: v128| f64x2_promote_low_f32x4(i32x4_shuffle::<2, 3, 2, 3>(x, x));
    let low = |x: v128| f64x2_promote_low_f32x4(x);
    i32x4_shuffle::<0, 1, 4, 5>(fma2(low(a), low(b), low(c)), fma2(high(a), high(b), high(c)))
}

/// `a * b + c` of f64 that came from f32, as two f32 in the low half: the sum rounded to odd, then to f32. See
/// `ternary_core::fma` for why that is one rounding.
#[inline(always)]
fn fma2(a: v128, b: v128, c: v128) -> v128 {
    let product = f64x2_mul(a, b);
    let sum = f64x2_add(product, c);
    // The exact error of the addition (Knuth's TwoSum).
    let without = f64x2_sub(sum, product);
    let error = f64x2_add(f64x2_sub(product, f64x2_sub(sum, without)), f64x2_sub(c, without));
    // Cut off towards zero, then set the last bit: the odd one of the two neighbours. The sign of error * sum says on
    // which side the sum lies; it cannot underflow, and is NaN, so neither sign, where the sum is not finite.
    let side = f64x2_mul(error, sum);
    let beyond = f64x2_lt(side, f64x2_splat(0.0));
    let inexact = v128_or(beyond, f64x2_gt(side, f64x2_splat(0.0)));
    let odd = v128_or(i64x2_add(sum, beyond), v128_and(inexact, i64x2_splat(1)));
    f32x4_demote_f64x2_zero(odd)
}

/// f16 in the low halves of four words, widened to f32.
#[inline(always)]
fn widen_f16(bits: v128) -> v128 {
    let magnitude = v128_and(bits, u32x4_splat(0x7fff));
    // The exponent field is 112 too small; multiplying by 2^112 mends it, for subnormals too.
    let scaled = f32x4_mul(i32x4_shl(magnitude, 13), u32x4_splat(239 << 23));
    // Infinity and NaN have the largest exponent in both.
    let special = v128_and(i32x4_gt(magnitude, u32x4_splat(0x7bff)), u32x4_splat(0x7f80_0000));
    let sign = i32x4_shl(v128_and(bits, u32x4_splat(0x8000)), 16);
    v128_or(v128_or(scaled, special), sign)
}

/// Which sixteen codes in natural order are places 16 k .. 16 k + 16 of the field order: 64 n + 32 h + m holds
/// element 128 h + 32 n + m.
#[inline(always)]
const fn natural(k: usize) -> usize {
    let (field, half, part) = (k / 4, k / 2 % 2, k % 2);
    8 * half + 2 * field + part
}

/// The fractions of a TQ1_0 block whose leading trits are the codes, in natural order: bytes 0..32 times 3^n,
/// bytes 32..48 times 3^n, bytes 48..52 times 1, 3, 9 and 27.
#[inline(always)]
fn tq1_fractions(packed: &[u8; 52]) -> Codes {
    let triple = |a| i8x16_add(i8x16_add(a, a), a);
    let (parts, last) = packed.as_chunks::<16>();
    let (mut a, mut b, mut c) = (vector(&parts[0]), vector(&parts[1]), vector(&parts[2]));
    let mut fractions = [a; BLOCK / 16];
    for n in 0..5 {
        (fractions[2 * n], fractions[2 * n + 1], fractions[10 + n]) = (a, b, c);
        (a, b, c) = (triple(a), triple(b), triple(c));
    }
    let once = [last[0], last[1], last[2], last[3]];
    let times = |factor: u8| u32::from_le_bytes(once.map(|byte| byte.wrapping_mul(factor)));
    fractions[15] = u32x4(times(1), times(3), times(9), times(27));
    fractions
}

/// The trit before the point of 3 times each fraction: 1 from 86 on, 2 from 171 on.
#[inline(always)]
fn leading_trits(fractions: v128) -> v128 {
    // A true comparison is -1.
    let first = u8x16_gt(fractions, u8x16_splat(85));
    let second = u8x16_gt(fractions, u8x16_splat(170));
    i8x16_neg(i8x16_add(first, second))
}
