//! Vectors of sixteen f32, ternary blocks and integer products with AVX2.

use std::arch::x86_64::*;

use half::f16;
use ternary_core::BLOCK;

use super::registers::{FOURS, PAIRS, add_products, fma_totals, leading_trits, q6_codes, reduce8, tq1_fractions};
use super::{Avx2, integer};
use crate::arch::methods::vector_methods;
use crate::simd::{Float, Kernel, LANES, PatchShape, Simd};

/// Elements 0..8 and 8..16.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m256, __m256);

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
    const TRANSPOSES: bool = true;
    const PATCH: PatchShape = PatchShape::Rows2Tokens3;
    /// Field n of half h at 2 n + h.
    type Codes = [__m256i; 8];
    /// Eight partial sums of a row.
    type Sums = __m256i;
    type I = [__m256i; 2];
    type Quad = __m128;
    type Lookup = Self;

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
    fn lookup(self) -> Self {
        self
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

        fn transpose_quads(self, rows: &[[i8; 32]; LANES], quads: &mut [[[i8; 4]; LANES]; 8]) {
            integer::transpose_quads(rows, quads);
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
            integer::dots_q8(blocks, acts)
        }
        fn dots_q2(self, blocks: [&[u8; 18]; 4], acts: &[i8; 96]) -> [__m256i; 4] {
            integer::dots_q2(blocks, acts)
        }
        fn dots_q6(self, blocks: [&[u8; 210]; 4], acts: &[i8; BLOCK]) -> [__m256i; 4] {
            integer::dots_q6(blocks, acts)
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
            // Combined in a register: after four stores a wider load would have to wait for them.
            let [a, b, c, d] = bits.map(u64::from);
            _mm_cvtph_ps(_mm_cvtsi64_si128((a | b << 16 | c << 32 | d << 48).cast_signed()))
        }
    }
}
