//! Vectors of sixteen f32, ternary blocks and integer products with AVX-512.

use std::arch::x86_64::*;

use half::f16;
use ternary_core::BLOCK;

use super::{Avx512, integer};
use crate::arch::methods::vector_methods;
use crate::arch::x86_64::avx2::{self, fma_totals, reduce8, tq1_fractions};
use crate::simd::{Float, Kernel, LANES, PatchShape, Simd};

impl<const VNNI: bool> Float for Avx512<VNNI> {
    type F = __m512;

    vector_methods! {
        fn splat(self, x: f32) -> __m512 {
            _mm512_set1_ps(x)
        }
        fn add(self, a: __m512, b: __m512) -> __m512 {
            _mm512_add_ps(a, b)
        }
        fn sub(self, a: __m512, b: __m512) -> __m512 {
            _mm512_sub_ps(a, b)
        }
        fn mul(self, a: __m512, b: __m512) -> __m512 {
            _mm512_mul_ps(a, b)
        }
        fn div(self, a: __m512, b: __m512) -> __m512 {
            _mm512_div_ps(a, b)
        }
        fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            _mm512_fmadd_ps(a, b, c)
        }
        fn max(self, a: __m512, b: __m512) -> __m512 {
            _mm512_max_ps(a, b)
        }
        fn min(self, a: __m512, b: __m512) -> __m512 {
            _mm512_min_ps(a, b)
        }
        fn round(self, a: __m512) -> __m512 {
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a)
        }
        fn pow2(self, a: __m512) -> __m512 {
            let biased = _mm512_add_epi32(_mm512_cvttps_epi32(a), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
    }
}

impl<const VNNI: bool> Simd for Avx512<VNNI> {
    const PATCH: PatchShape = PatchShape::Rows4Tokens6;
    const TRANSPOSES: bool = true;
    const FOUR_BLOCKS: bool = true;
    /// Field n of both halves at n.
    type Codes = [__m512i; 4];
    /// Sixteen partial sums of a row.
    type Sums = __m512i;
    type I = __m512i;
    type Quad = __m128;
    type Lookup = Self;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn compiled_for_avx512<S: Simd, K: Kernel>(s: S, kernel: K) -> K::Output {
            kernel.run(s)
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn compiled_for_vnni<S: Simd, K: Kernel>(s: S, kernel: K) -> K::Output {
            kernel.run(s)
        }
        // SAFETY: `self` is the proof that the machine has these features.
        unsafe { if VNNI { compiled_for_vnni(self, kernel) } else { compiled_for_avx512(self, kernel) } }
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
        fn load(self, x: &[f32; LANES]) -> __m512 {
            _mm512_loadu_ps(x.as_ptr())
        }
        fn store(self, a: __m512, out: &mut [f32; LANES]) {
            _mm512_storeu_ps(out.as_mut_ptr(), a);
        }
        fn load_f32(self, bytes: &[u8; 4 * LANES]) -> __m512 {
            _mm512_loadu_ps(bytes.as_ptr().cast())
        }
        fn load_f16(self, bytes: &[u8; 2 * LANES]) -> __m512 {
            _mm512_cvtph_ps(_mm256_loadu_si256(bytes.as_ptr().cast()))
        }
        fn load_half(self, x: &[f16; LANES]) -> __m512 {
            _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast()))
        }
        fn load_bf16(self, bytes: &[u8; 2 * LANES]) -> __m512 {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(bytes.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
        fn splat_f16(self, bits: u16) -> __m512 {
            _mm512_cvtph_ps(_mm256_set1_epi16(bits.cast_signed()))
        }
        fn load_i8(self, bytes: &[u8; LANES]) -> __m512 {
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(bytes.as_ptr().cast())))
        }
        fn load_i32(self, x: &[i32; LANES]) -> __m512 {
            _mm512_cvtepi32_ps(_mm512_loadu_si512(x.as_ptr().cast()))
        }
        fn reduce(self, a: __m512) -> f32 {
            reduce8(_mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a)))
        }
        fn reduce4(self, a: [__m512; 4]) -> [f32; 4] {
            reduce4(a)
        }
        fn unpack_q6(self, low: &[u8; 64], high: &[u8; 32], codes: &mut [[u8; LANES]; 8]) {
            let low = _mm512_loadu_si512(low.as_ptr().cast());
            let high = _mm512_broadcast_i64x4(_mm256_loadu_si256(high.as_ptr().cast()));
            // The high bits of the even and the odd quarter come to bits 4 and 5 by shifts of their own.
            let first = _mm512_sllv_epi16(high, even_odd(4, 2));
            let second = _mm512_srlv_epi16(high, even_odd(0, 2));
            let (nibble, all, bias) = (_mm512_set1_epi8(15), _mm512_set1_epi8(63), _mm512_set1_epi8(32));
            // 0xca: bits of the second operand where the first has ones, else of the third.
            let first = _mm512_ternarylogic_epi32::<0xca>(nibble, low, first);
            let second = _mm512_ternarylogic_epi32::<0xca>(nibble, _mm512_srli_epi16::<4>(low), second);
            let (out, _) = codes.as_flattened_mut().as_chunks_mut::<64>();
            _mm512_storeu_si512(out[0].as_mut_ptr().cast(), _mm512_sub_epi8(_mm512_and_si512(first, all), bias));
            _mm512_storeu_si512(out[1].as_mut_ptr().cast(), _mm512_sub_epi8(_mm512_and_si512(second, all), bias));
        }

        fn transpose_quads(self, rows: &[[i8; 32]; LANES], quads: &mut [[[i8; 4]; LANES]; 8]) {
            integer::transpose_quads(rows, quads);
        }

        fn unpack_tq2(self, packed: &[u8; BLOCK / 4]) -> [__m512i; 4] {
            let mask = _mm512_set1_epi8(3);
            let all = _mm512_loadu_si512(packed.as_ptr().cast());
            [
                _mm512_and_si512(all, mask),
                _mm512_and_si512(_mm512_srli_epi16::<2>(all), mask),
                _mm512_and_si512(_mm512_srli_epi16::<4>(all), mask),
                _mm512_and_si512(_mm512_srli_epi16::<6>(all), mask),
            ]
        }
        fn unpack_tq1(self, packed: &[u8; 52]) -> [__m512i; 4] {
            let [f0, f1, f2, f3, f4, f5, f6, f7] = tq1_fractions(packed);
            [leading_trits(f0, f4), leading_trits(f1, f5), leading_trits(f2, f6), leading_trits(f3, f7)]
        }
        fn load_codes(self, codes: &[u8; BLOCK]) -> [__m512i; 4] {
            let mut loaded = [_mm512_setzero_si512(); 4];
            let (fields, _) = codes.as_chunks::<32>();
            for n in 0..4 {
                let first = _mm256_loadu_si256(fields[n].as_ptr().cast());
                let second = _mm256_loadu_si256(fields[4 + n].as_ptr().cast());
                loaded[n] = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second);
            }
            loaded
        }
        fn zero_sums(self) -> __m512i {
            _mm512_setzero_si512()
        }
        fn no_quads(self, x_sum: i32) -> __m512i {
            _mm512_set1_epi32(if VNNI { -128 * x_sum } else { 0 })
        }
        fn dot_quads(self, acc: __m512i, w: &[[i8; 4]; LANES], x: [i8; 4]) -> __m512i {
            let w = _mm512_loadu_si512(w.as_ptr().cast());
            let x = _mm512_set1_epi32(i32::from_le_bytes(x.map(i8::cast_unsigned)));
            if VNNI {
                // The weight plus 128 is unsigned; `no_quads` has subtracted the excess.
                return _mm512_dpbusd_epi32(acc, _mm512_xor_si512(w, _mm512_set1_epi8(-128)), x);
            }
            // The sign of the weight goes to x. A pair is at most 2 * 128 * 127 = 32,512.
            let signed = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x);
            let pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(w), signed);
            _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
        }
        fn mul_add_i32(self, a: __m512i, b: &[i32; LANES], c: __m512i) -> __m512i {
            _mm512_add_epi32(_mm512_mullo_epi32(a, _mm512_loadu_si512(b.as_ptr().cast())), c)
        }
        fn to_f32(self, a: __m512i) -> __m512 {
            _mm512_cvtepi32_ps(a)
        }
        fn sum_of(self, total: i32) -> __m512i {
            _mm512_zextsi128_si512(_mm_cvtsi32_si128(total))
        }
        fn dots_q8(self, blocks: [&[u8; 34]; 4], acts: &[i8; 32]) -> [__m512i; 4] {
            if VNNI {
                return integer::dots_q8_vnni(blocks, acts);
            }
            let [a, b, c, d] = avx2::dots_q8(blocks, acts);
            [_mm512_zextsi256_si512(a), _mm512_zextsi256_si512(b), _mm512_zextsi256_si512(c), _mm512_zextsi256_si512(d)]
        }
        fn dots_q2(self, blocks: [&[u8; 18]; 4], acts: &[i8; 96]) -> [__m512i; 4] {
            integer::dots_q2(blocks, acts)
        }
        fn dots_q6(self, blocks: [&[u8; 210]; 4], acts: &[i8; BLOCK]) -> [__m512i; 4] {
            integer::dots_q6(blocks, acts)
        }
        fn dot_codes(self, codes: &[__m512i; 4], acts: &[i8; BLOCK]) -> __m512i {
            let mut sums = _mm512_setzero_si512();
            if VNNI {
                for (codes, acts) in codes.iter().zip(acts.as_chunks::<64>().0) {
                    let acts = _mm512_loadu_si512(acts.as_ptr().cast());
                    sums = _mm512_dpbusd_epi32(sums, *codes, acts);
                }
                return sums;
            }
            // A pair of products is at most 2 * 3 * 127 = 762, four of them 3048: far from 32767.
            for (codes, acts) in codes.iter().zip(acts.as_chunks::<64>().0) {
                let acts = _mm512_loadu_si512(acts.as_ptr().cast());
                sums = _mm512_add_epi16(sums, _mm512_maddubs_epi16(*codes, acts));
            }
            _mm512_madd_epi16(sums, _mm512_set1_epi16(1))
        }
        fn accumulate(
            self,
            acc: __m128,
            dots: [__m512i; 4],
            act_sum: i32,
            w_scales: __m128,
            a_scale: f32,
        ) -> __m128 {
            let [a, b, c, d] = dots;
            // Per quarter register: [a0 + a2, b0 + b2, a1 + a3, b1 + b3], the same of c and d, then all four.
            let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            let abcd = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
            let half = _mm256_add_epi32(_mm512_castsi512_si256(abcd), _mm512_extracti64x4_epi64::<1>(abcd));
            let totals = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
            fma_totals(acc, totals, act_sum, w_scales, a_scale)
        }
        fn accumulate_four(
            self,
            acc: __m128,
            dots: [[__m512i; 4]; 4],
            act_sums: &[i32; 4],
            w_scales: [__m128; 4],
            a_scales: &[f32; 4],
        ) -> __m128 {
            let [a, b, c, d] = [rows_by_lane(dots[0]), rows_by_lane(dots[1]), rows_by_lane(dots[2]), rows_by_lane(dots[3])];
            // Quarter b of the totals: the four rows of block b.
            let ab = _mm512_add_epi32(_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
            let cd = _mm512_add_epi32(_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
            let totals = _mm512_add_epi32(_mm512_shuffle_i32x4::<0x88>(ab, cd), _mm512_shuffle_i32x4::<0xdd>(ab, cd));

            let by_quarter = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
            let act_sums = _mm512_castsi128_si512(_mm_loadu_si128(act_sums.as_ptr().cast()));
            let a_scales = _mm512_castps128_ps512(_mm_loadu_ps(a_scales.as_ptr()));
            let totals = _mm512_sub_epi32(totals, _mm512_permutexvar_epi32(by_quarter, act_sums));
            let ints = _mm512_cvtepi32_ps(totals);
            let low = _mm512_castps256_ps512(_mm256_set_m128(w_scales[1], w_scales[0]));
            let w_scales = _mm512_insertf32x8::<1>(low, _mm256_set_m128(w_scales[3], w_scales[2]));
            let scales = _mm512_mul_ps(w_scales, _mm512_permutexvar_ps(by_quarter, a_scales));

            let acc = _mm_fmadd_ps(_mm512_castps512_ps128(scales), _mm512_castps512_ps128(ints), acc);
            let acc = _mm_fmadd_ps(_mm512_extractf32x4_ps::<1>(scales), _mm512_extractf32x4_ps::<1>(ints), acc);
            let acc = _mm_fmadd_ps(_mm512_extractf32x4_ps::<2>(scales), _mm512_extractf32x4_ps::<2>(ints), acc);
            _mm_fmadd_ps(_mm512_extractf32x4_ps::<3>(scales), _mm512_extractf32x4_ps::<3>(ints), acc)
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

/// Partial sums of four rows `a..d`, four of each row: quarter register q holds a, b, c, d of part q.
///
/// A lane sums 16 products of a code (at most 3) and an activation: at most 6096, and two lanes 12,192, so both
/// packings to 16 bits are exact.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn rows_by_lane([a, b, c, d]: [__m512i; 4]) -> __m512i {
    let ones = _mm512_set1_epi16(1);
    let ab = _mm512_madd_epi16(_mm512_packs_epi32(a, b), ones);
    let cd = _mm512_madd_epi16(_mm512_packs_epi32(c, d), ones);
    _mm512_madd_epi16(_mm512_packs_epi32(ab, cd), ones)
}

/// The sums of four by the tree of `dot16`.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
fn reduce4([a, b, c, d]: [__m512; 4]) -> [f32; 4] {
    // Lanes 0..8 += lanes 8..16, of two vectors at a time: [a | b].
    let ab = _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b));
    let cd = _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(c, d), _mm512_shuffle_f32x4::<0xee>(c, d));
    // Then four lanes of each, a quarter of the register per vector, then pairs within the quarters.
    let four = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(ab, cd), _mm512_shuffle_f32x4::<0xdd>(ab, cd));
    let two = _mm512_add_ps(four, _mm512_permute_ps::<0b11_10_11_10>(four));
    let one = _mm512_add_ps(two, _mm512_permute_ps::<0b01_01_01_01>(two));
    let sums = _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, one));
    let mut out = [0.0; 4];
    // SAFETY: the store writes the four elements of `out`.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), sums) };
    out
}

/// `even` in the words of the lower half, `odd` in those of the upper.
#[target_feature(enable = "avx512f")]
#[inline]
fn even_odd(even: i16, odd: i16) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_set1_epi16(even), _mm256_set1_epi16(odd))
}

/// The trit before the point of 3 times each fraction, of two half registers: 1 from 86 on, 2 from 171 on.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn leading_trits(low: __m256i, high: __m256i) -> __m512i {
    let fractions = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
    let one = _mm512_set1_epi8(1);
    let first = _mm512_min_epu8(_mm512_subs_epu8(fractions, _mm512_set1_epi8(85)), one);
    let second = _mm512_min_epu8(_mm512_subs_epu8(fractions, _mm512_set1_epi8(170u8.cast_signed())), one);
    _mm512_add_epi8(first, second)
}
