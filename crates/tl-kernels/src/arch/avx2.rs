//! AVX2 with FMA and F16C, with or without AVX-VNNI: a group of sixteen f32 is two registers, a ternary block eight.

use std::arch::asm;
use std::arch::x86_64::*;

use half::f16;
use ternary_core::BLOCK;

use super::vector_methods;
use crate::activation::LANES;
use crate::vector::{DenseTile, Float, Kernel, Simd};

/// Proof of AVX2, FMA and F16C, and of AVX-VNNI where `VNNI` is set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2<const VNNI: bool>(());

/// How [`add_products`] multiplies: in pairs, as every AVX2 machine can.
pub(super) const PAIRS: u8 = 0;

/// In fours, by `vpdpbusd` as AVX-VNNI encodes it.
pub(super) const FOURS: u8 = 1;

/// In fours, by `vpdpbusd` as AVX-512 VNNI and VL encode it: for tests on machines that have no other.
#[cfg(test)]
pub(super) const FOURS_EVEX: u8 = 2;

/// Elements 0..8 and 8..16.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m256, __m256);

impl<const VNNI: bool> Avx2<VNNI> {
    pub(crate) fn new() -> Option<Self> {
        let supported = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && (!VNNI || is_x86_feature_detected!("avxvnni"));
        supported.then_some(Avx2(()))
    }

    /// The level below.
    pub(crate) fn without_vnni(self) -> Avx2<false> {
        Avx2(())
    }
}

impl<const VNNI: bool> Float for Avx2<VNNI> {
    type F = F32x16;

    vector_methods! {
        fn splat(self, x: f32) -> F32x16 {
            let v = _mm256_set1_ps(x);
            F32x16(v, v)
        }
        fn add(self, a: F32x16, b: F32x16) -> F32x16 {
            F32x16(_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1))
        }
        fn sub(self, a: F32x16, b: F32x16) -> F32x16 {
            F32x16(_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1))
        }
        fn mul(self, a: F32x16, b: F32x16) -> F32x16 {
            F32x16(_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1))
        }
        fn div(self, a: F32x16, b: F32x16) -> F32x16 {
            F32x16(_mm256_div_ps(a.0, b.0), _mm256_div_ps(a.1, b.1))
        }
        fn fma(self, a: F32x16, b: F32x16, c: F32x16) -> F32x16 {
            F32x16(_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1))
        }
        fn max(self, a: F32x16, b: F32x16) -> F32x16 {
            F32x16(_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1))
        }
        fn min(self, a: F32x16, b: F32x16) -> F32x16 {
            F32x16(_mm256_min_ps(a.0, b.0), _mm256_min_ps(a.1, b.1))
        }
        fn round(self, a: F32x16) -> F32x16 {
            const TO_NEAREST_EVEN: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
            F32x16(_mm256_round_ps::<TO_NEAREST_EVEN>(a.0), _mm256_round_ps::<TO_NEAREST_EVEN>(a.1))
        }
        fn pow2(self, a: F32x16) -> F32x16 {
            let bias = _mm256_set1_epi32(127);
            let low = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvttps_epi32(a.0), bias));
            let high = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvttps_epi32(a.1), bias));
            F32x16(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }
}

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    const DENSE_TILE: DenseTile = DenseTile::Rows2Tokens3;
    /// Field n of half h at 2 n + h.
    type Codes = [__m256i; 8];
    /// Eight partial sums.
    type Sums = __m256i;
    type I = [__m256i; 2];
    type Quad = __m128;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn compiled_for_avx2<S: Simd, K: Kernel>(s: S, kernel: K) -> K::Output {
            kernel.run(s)
        }
        // SAFETY: `self` is the proof that the machine has these features.
        unsafe { compiled_for_avx2(self, kernel) }
    }

    #[inline(always)]
    fn prefetch<T>(self, near: &T, distance: usize) {
        let line = std::ptr::from_ref(near).cast::<i8>().wrapping_add(distance);
        // SAFETY: a prefetch never faults, whatever the address; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line) }
    }

    #[inline(always)]
    fn prefetch_far<T>(self, near: &T, distance: usize) {
        let line = std::ptr::from_ref(near).cast::<i8>().wrapping_add(distance);
        // SAFETY: a prefetch never faults, whatever the address; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line) }
    }

    vector_methods! {
        fn load(self, x: &[f32; LANES]) -> F32x16 {
            F32x16(_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x[8..].as_ptr()))
        }
        fn store(self, a: F32x16, out: &mut [f32; LANES]) {
            let (low, high) = out.split_at_mut(8);
            _mm256_storeu_ps(low.as_mut_ptr(), a.0);
            _mm256_storeu_ps(high.as_mut_ptr(), a.1);
        }
        fn load_f32(self, bytes: &[u8; 4 * LANES]) -> F32x16 {
            F32x16(_mm256_loadu_ps(bytes.as_ptr().cast()), _mm256_loadu_ps(bytes[32..].as_ptr().cast()))
        }
        fn load_f16(self, bytes: &[u8; 2 * LANES]) -> F32x16 {
            let low = _mm_loadu_si128(bytes.as_ptr().cast());
            let high = _mm_loadu_si128(bytes[16..].as_ptr().cast());
            F32x16(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
        }
        fn load_half(self, x: &[f16; LANES]) -> F32x16 {
            let low = _mm_loadu_si128(x.as_ptr().cast());
            let high = _mm_loadu_si128(x[8..].as_ptr().cast());
            F32x16(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
        }
        fn load_bf16(self, bytes: &[u8; 2 * LANES]) -> F32x16 {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(bytes.as_ptr().cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(bytes[16..].as_ptr().cast()));
            let (low, high) = (_mm256_slli_epi32::<16>(low), _mm256_slli_epi32::<16>(high));
            F32x16(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
        fn splat_f16(self, bits: u16) -> F32x16 {
            let v = _mm256_cvtph_ps(_mm_set1_epi16(bits.cast_signed()));
            F32x16(v, v)
        }
        fn load_i8(self, bytes: &[u8; LANES]) -> F32x16 {
            let bytes = _mm_loadu_si128(bytes.as_ptr().cast());
            let (low, high) = (_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes)));
            F32x16(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
        fn load_i32(self, x: &[i32; LANES]) -> F32x16 {
            let low = _mm256_loadu_si256(x.as_ptr().cast());
            let high = _mm256_loadu_si256(x[8..].as_ptr().cast());
            F32x16(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
        fn reduce(self, a: F32x16) -> f32 {
            reduce8(_mm256_add_ps(a.0, a.1))
        }
        fn reduce4(self, a: [F32x16; 4]) -> [f32; 4] {
            let [a, b, c, d] = [
                _mm256_add_ps(a[0].0, a[0].1),
                _mm256_add_ps(a[1].0, a[1].1),
                _mm256_add_ps(a[2].0, a[2].1),
                _mm256_add_ps(a[3].0, a[3].1),
            ];
            // Four lanes of two vectors at a time: [a | b].
            let ab = _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b));
            let cd = _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(c, d), _mm256_permute2f128_ps::<0x31>(c, d));
            // [a a c c | b b d d], two lanes of each, then their sums in the even places.
            let two = _mm256_add_ps(_mm256_shuffle_ps::<0x44>(ab, cd), _mm256_shuffle_ps::<0xee>(ab, cd));
            let one = _mm256_add_ps(two, _mm256_movehdup_ps(two));
            let (ac, bd) = (_mm256_castps256_ps128(one), _mm256_extractf128_ps::<1>(one));
            let mut sums = [0.0; 4];
            _mm_storeu_ps(sums.as_mut_ptr(), _mm_blend_ps::<0b1010>(ac, _mm_moveldup_ps(bd)));
            sums
        }
        fn unpack_q6(self, low: &[u8; 64], high: &[u8; 32], codes: &mut [[u8; LANES]; 8]) {
            let a = _mm256_loadu_si256(low.as_ptr().cast());
            let b = _mm256_loadu_si256(low[32..].as_ptr().cast());
            let high = _mm256_loadu_si256(high.as_ptr().cast());
            let quarters = [
                q6_codes(a, _mm256_slli_epi16::<4>(high)),
                q6_codes(b, _mm256_slli_epi16::<2>(high)),
                q6_codes(_mm256_srli_epi16::<4>(a), high),
                q6_codes(_mm256_srli_epi16::<4>(b), _mm256_srli_epi16::<2>(high)),
            ];
            for (out, quarter) in codes.as_flattened_mut().as_chunks_mut::<32>().0.iter_mut().zip(quarters) {
                _mm256_storeu_si256(out.as_mut_ptr().cast(), quarter);
            }
        }

        fn unpack_tq2(self, packed: &[u8; BLOCK / 4]) -> [__m256i; 8] {
            let mask = _mm256_set1_epi8(3);
            let a = _mm256_loadu_si256(packed.as_ptr().cast());
            let b = _mm256_loadu_si256(packed[32..].as_ptr().cast());
            [
                _mm256_and_si256(a, mask),
                _mm256_and_si256(b, mask),
                _mm256_and_si256(_mm256_srli_epi16::<2>(a), mask),
                _mm256_and_si256(_mm256_srli_epi16::<2>(b), mask),
                _mm256_and_si256(_mm256_srli_epi16::<4>(a), mask),
                _mm256_and_si256(_mm256_srli_epi16::<4>(b), mask),
                _mm256_and_si256(_mm256_srli_epi16::<6>(a), mask),
                _mm256_and_si256(_mm256_srli_epi16::<6>(b), mask),
            ]
        }
        fn unpack_tq1(self, packed: &[u8; 52]) -> [__m256i; 8] {
            let [f0, f1, f2, f3, f4, f5, f6, f7] = tq1_fractions(packed);
            [
                leading_trits(f0),
                leading_trits(f4),
                leading_trits(f1),
                leading_trits(f5),
                leading_trits(f2),
                leading_trits(f6),
                leading_trits(f3),
                leading_trits(f7),
            ]
        }
        fn load_codes(self, codes: &[u8; BLOCK]) -> [__m256i; 8] {
            let mut loaded = [_mm256_setzero_si256(); 8];
            let (fields, _) = codes.as_chunks::<32>();
            for n in 0..4 {
                loaded[2 * n] = _mm256_loadu_si256(fields[n].as_ptr().cast());
                loaded[2 * n + 1] = _mm256_loadu_si256(fields[4 + n].as_ptr().cast());
            }
            loaded
        }
        fn zero_sums(self) -> __m256i {
            _mm256_setzero_si256()
        }
        fn no_quads(self, _x_sum: i32) -> [__m256i; 2] {
            [_mm256_setzero_si256(); 2]
        }
        fn dot_quads(self, acc: [__m256i; 2], w: &[[i8; 4]; LANES], x: [i8; 4]) -> [__m256i; 2] {
            let x = _mm256_set1_epi32(i32::from_le_bytes(x.map(i8::cast_unsigned)));
            let mut sums = acc;
            for (sums, w) in sums.iter_mut().zip(w.as_chunks::<8>().0) {
                // The sign of the weight goes to x. A pair is at most 2 * 128 * 127 = 32,512.
                let w = _mm256_loadu_si256(w.as_ptr().cast());
                let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
                *sums = _mm256_add_epi32(*sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
            }
            sums
        }
        fn mul_add_i32(self, a: [__m256i; 2], b: &[i32; LANES], c: [__m256i; 2]) -> [__m256i; 2] {
            let (low, high) = b.split_at(8);
            let low = _mm256_mullo_epi32(a[0], _mm256_loadu_si256(low.as_ptr().cast()));
            let high = _mm256_mullo_epi32(a[1], _mm256_loadu_si256(high.as_ptr().cast()));
            [_mm256_add_epi32(low, c[0]), _mm256_add_epi32(high, c[1])]
        }
        fn to_f32(self, a: [__m256i; 2]) -> Self::F {
            F32x16(_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1]))
        }
        fn sum_of(self, total: i32) -> __m256i {
            _mm256_zextsi128_si256(_mm_cvtsi32_si128(total))
        }
        fn dots_q8(self, blocks: [&[u8; 34]; 4], acts: &[i8; 32]) -> [__m256i; 4] {
            super::integer::avx2::dots_q8(blocks, acts)
        }
        fn dots_q6(self, blocks: [&[u8; 210]; 4], acts: &[i8; BLOCK]) -> [__m256i; 4] {
            super::integer::avx2::dots_q6(blocks, acts)
        }
        fn dot_codes(self, codes: &[__m256i; 8], acts: &[i8; BLOCK]) -> __m256i {
            if VNNI {
                let mut sums = _mm256_setzero_si256();
                for (codes, acts) in codes.iter().zip(acts.as_chunks::<32>().0) {
                    let acts = _mm256_loadu_si256(acts.as_ptr().cast());
                    sums = add_products::<FOURS>(sums, *codes, acts);
                }
                return sums;
            }
            // A pair of products is at most 2 * 3 * 127 = 762, eight of them 6096: far from 32767.
            let mut pairs = _mm256_setzero_si256();
            for (codes, acts) in codes.iter().zip(acts.as_chunks::<32>().0) {
                let acts = _mm256_loadu_si256(acts.as_ptr().cast());
                pairs = add_products::<PAIRS>(pairs, *codes, acts);
            }
            _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
        }
        fn accumulate(
            self,
            acc: __m128,
            dots: [__m256i; 4],
            act_sum: i32,
            w_scales: __m128,
            a_scale: f32,
        ) -> __m128 {
            let [a, b, c, d] = dots;
            // Per half register: [a0 + a2, b0 + b2, a1 + a3, b1 + b3], the same of c and d, then all four.
            let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
            let abcd = _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
            let totals = _mm_add_epi32(_mm256_castsi256_si128(abcd), _mm256_extracti128_si256::<1>(abcd));
            fma_totals(acc, totals, act_sum, w_scales, a_scale)
        }
        fn quad(self, x: [f32; 4]) -> __m128 {
            _mm_loadu_ps(x.as_ptr())
        }
        fn quad_values(self, a: __m128) -> [f32; 4] {
            let mut x = [0.0; 4];
            _mm_storeu_ps(x.as_mut_ptr(), a);
            x
        }
        fn quad_f16(self, bits: [u16; 4]) -> __m128 {
            // Put together in a register: four stores and a wider load would wait for each other.
            let [a, b, c, d] = bits.map(u64::from);
            _mm_cvtph_ps(_mm_cvtsi64_si128((a | b << 16 | c << 32 | d << 48).cast_signed()))
        }
    }
}

/// Adds the products of the unsigned bytes `codes` and the signed bytes `acts` to `sums`: two to each lane of 16 bits,
/// which must neither saturate nor overflow, or four to each lane of 32 bits, by `FORM`.
///
/// # Safety
/// The machine has AVX-VNNI for [`FOURS`], AVX-512 VNNI and VL for `FOURS_EVEX`.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) unsafe fn add_products<const FORM: u8>(mut sums: __m256i, codes: __m256i, acts: __m256i) -> __m256i {
    if FORM == PAIRS {
        return _mm256_add_epi16(sums, _mm256_maddubs_epi16(codes, acts));
    }
    // Written as an instruction, because one generic body cannot be compiled for two sets of features.
    // SAFETY: the instruction works on registers only, and the machine has it.
    unsafe {
        if FORM == FOURS {
            asm!(
                "{{vex}} vpdpbusd {sums}, {codes}, {acts}",
                sums = inout(ymm_reg) sums,
                codes = in(ymm_reg) codes,
                acts = in(ymm_reg) acts,
                options(pure, nomem, nostack, preserves_flags)
            );
        } else {
            asm!(
                "{{evex}} vpdpbusd {sums}, {codes}, {acts}",
                sums = inout(ymm_reg) sums,
                codes = in(ymm_reg) codes,
                acts = in(ymm_reg) acts,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
    }
    sums
}

/// The sums of eight rows, of two sums that [`add_products`] made.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn row_sums<const FORM: u8>([a, b]: [__m256i; 2]) -> __m256i {
    if FORM == PAIRS {
        let ones = _mm256_set1_epi16(1);
        return _mm256_add_epi32(_mm256_madd_epi16(a, ones), _mm256_madd_epi16(b, ones));
    }
    _mm256_add_epi32(a, b)
}

/// `a` by the tree of `dot16`, from eight lanes on.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn reduce8(a: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

/// `q - 32` of 6-bit codes: the low four bits of the bytes of `low`, bits 4 and 5 of `high`.
#[target_feature(enable = "avx2")]
#[inline]
fn q6_codes(low: __m256i, high: __m256i) -> __m256i {
    let low = _mm256_and_si256(low, _mm256_set1_epi8(15));
    let high = _mm256_and_si256(high, _mm256_set1_epi8(48));
    _mm256_sub_epi8(_mm256_or_si256(low, high), _mm256_set1_epi8(32))
}

/// The fractions of a TQ1_0 block whose leading trits are the codes, in natural order, 32 per register:
///
/// ```text
/// 0..5  bytes 0..32, times 3^n     5 bytes 32..48, times 1 | 3    6 times 9 | 27    7 times 81 | bytes 48..52
/// ```
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn tq1_fractions(packed: &[u8; 52]) -> [__m256i; 8] {
    // SAFETY: the loads read 32 and 16 bytes from 0 and 32 on, of 52.
    let (a, b) = unsafe { (_mm256_loadu_si256(packed.as_ptr().cast()), _mm_loadu_si128(packed[32..].as_ptr().cast())) };
    let c = _mm_cvtsi32_si128(i32::from_le_bytes([packed[48], packed[49], packed[50], packed[51]]));
    let (a1, b1, c1) = (triple32(a), triple16(b), triple16(c));
    let (a2, b2, c2) = (triple32(a1), triple16(b1), triple16(c1));
    let (a3, b3, c3) = (triple32(a2), triple16(b2), triple16(c2));
    let (a4, b4) = (triple32(a3), triple16(b3));
    let last = _mm_unpacklo_epi64(_mm_unpacklo_epi32(c, c1), _mm_unpacklo_epi32(c2, c3));
    [a, a1, a2, a3, a4, _mm256_set_m128i(b1, b), _mm256_set_m128i(b3, b2), _mm256_set_m128i(last, b4)]
}

/// Each byte times 3, mod 256. The sum of a byte with itself is written as an instruction: the compiler would make a
/// product of the two sums, and bytes have none that is as fast.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn triple32(a: __m256i) -> __m256i {
    let twice: __m256i;
    // SAFETY: one instruction of the enabled feature, on registers only.
    unsafe {
        asm!(
            "vpaddb {twice}, {a}, {a}",
            twice = out(ymm_reg) twice,
            a = in(ymm_reg) a,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    _mm256_add_epi8(twice, a)
}

/// Each byte times 3, mod 256.
#[target_feature(enable = "avx2")]
#[inline]
fn triple16(a: __m128i) -> __m128i {
    let twice: __m128i;
    // SAFETY: one instruction of the enabled feature, on registers only.
    unsafe {
        asm!(
            "vpaddb {twice}, {a}, {a}",
            twice = out(xmm_reg) twice,
            a = in(xmm_reg) a,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    _mm_add_epi8(twice, a)
}

/// The trit before the point of 3 times each fraction: 1 from 86 on, 2 from 171 on.
#[target_feature(enable = "avx2")]
#[inline]
fn leading_trits(fractions: __m256i) -> __m256i {
    let one = _mm256_set1_epi8(1);
    let first = _mm256_min_epu8(_mm256_subs_epu8(fractions, _mm256_set1_epi8(85)), one);
    let second = _mm256_min_epu8(_mm256_subs_epu8(fractions, _mm256_set1_epi8(170u8.cast_signed())), one);
    _mm256_add_epi8(first, second)
}

/// `fma(w_scales[j] * a_scale, (totals[j] - act_sum) as f32, acc[j])` for each j.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn fma_totals(acc: __m128, totals: __m128i, act_sum: i32, w_scales: __m128, a_scale: f32) -> __m128 {
    let ints = _mm_cvtepi32_ps(_mm_sub_epi32(totals, _mm_set1_epi32(act_sum)));
    _mm_fmadd_ps(_mm_mul_ps(w_scales, _mm_set1_ps(a_scale)), ints, acc)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sums + codes * acts` by the definition of the instruction: u8 times i8, four products to a lane of 32 bits.
    fn model(sums: &[i32; 8], codes: &[u8; 32], acts: &[i8; 32]) -> [i32; 8] {
        std::array::from_fn(|lane| {
            let products = (4 * lane..4 * lane + 4).map(|i| i32::from(codes[i]) * i32::from(acts[i]));
            sums[lane].wrapping_add(products.sum())
        })
    }

    #[target_feature(enable = "avx2")]
    unsafe fn instruction<const FORM: u8>(sums: &[i32; 8], codes: &[u8; 32], acts: &[i8; 32]) -> [i32; 8] {
        let mut out = [0; 8];
        // SAFETY: the loads and the store are of whole arrays; the caller has seen that the machine has the form.
        unsafe {
            let load = |bytes: *const __m256i| _mm256_loadu_si256(bytes);
            let (codes, acts) = (load(codes.as_ptr().cast()), load(acts.as_ptr().cast()));
            let got = add_products::<FORM>(load(sums.as_ptr().cast()), codes, acts);
            _mm256_storeu_si256(out.as_mut_ptr().cast(), got);
        }
        out
    }

    #[test]
    #[allow(clippy::print_stdout, reason = "a missing form must be seen in the test's output")]
    fn products_in_fours_follow_the_model_of_the_instruction() {
        let vex = is_x86_feature_detected!("avxvnni");
        let evex = is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl");
        for (form, present) in [("avxvnni, VEX", vex), ("avx512vnni and avx512vl, EVEX", evex)] {
            if !present {
                println!("SKIP vpdpbusd on 256 bits as encoded by {form}");
            }
        }
        for seed in 0..200usize {
            let codes = std::array::from_fn(|i| [0, 255, (i * 37 + seed * 11) as u8, 128][(i + seed) % 4]);
            let acts = std::array::from_fn(|i| [-128, 127, (i * 53 + seed * 7) as u8 as i8, -1][(i / 2 + seed) % 4]);
            let sums = std::array::from_fn(|i| [i32::MAX, i32::MIN, 0, (i * seed) as i32][(i + seed) % 4]);
            let expected = model(&sums, &codes, &acts);
            // SAFETY: detected above.
            unsafe {
                if vex {
                    assert_eq!(instruction::<FOURS>(&sums, &codes, &acts), expected, "VEX {seed}");
                }
                if evex {
                    assert_eq!(instruction::<FOURS_EVEX>(&sums, &codes, &acts), expected, "EVEX {seed}");
                }
            }
        }
    }
}
