//! The INT8 operations with AVX2.
//!
//! Dots widen to 16 bits first: a pair of products is at most 2 * 127 * 127. Weighted sums use `vpmaddubsw`: a pair of
//! products of a code up to 127 and a value is at most 32,258, below the limit of 32,767.

use std::arch::x86_64::*;

use super::{BLOCK_COLUMNS, Int8};
use crate::arch::avx2::Avx2;

impl Int8 for Avx2 {
    #[inline(always)]
    fn dots_i8<const R: usize, const Q: usize>(
        self,
        rows: [&[i8]; R],
        x: [&[i8]; Q],
        _x_sums: [i32; Q],
    ) -> [[i32; R]; Q] {
        // SAFETY: `self` is the proof that the machine has these features.
        unsafe { dots(rows, x) }
    }
    #[inline(always)]
    fn interleave(self, rows: [&[i8]; 4], out: &mut [[i8; 4]]) {
        // SAFETY: as above.
        unsafe { interleave(rows, out) }
    }
    #[inline(always)]
    fn quad_sums<const Q: usize>(
        self,
        codes: [&[[u8; 4]]; Q],
        quads: &[[i8; 4]],
        stride: usize,
    ) -> [[i32; BLOCK_COLUMNS]; Q] {
        let mut sums = [[0; BLOCK_COLUMNS]; Q];
        for (codes, sums) in codes.into_iter().zip(&mut sums) {
            // SAFETY: as above.
            unsafe { quad_sums(codes, quads, stride, sums) }
        }
        sums
    }
}

/// 16 bytes, widened.
#[target_feature(enable = "avx2")]
#[inline]
fn wide(bytes: &[i8; 16]) -> __m256i {
    // SAFETY: the load reads the 16 bytes.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// The sum of eight.
#[target_feature(enable = "avx2")]
#[inline]
fn total(sums: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b11_10_11_10>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b01>(two)))
}

#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn dots<const R: usize, const Q: usize>(rows: [&[i8]; R], x: [&[i8]; Q]) -> [[i32; R]; Q] {
    let n = x[0].len() / 16;
    let mut acc = [[_mm256_setzero_si256(); R]; Q];
    for g in 0..n {
        let mut w = [_mm256_setzero_si256(); R];
        for i in 0..R {
            w[i] = wide(&rows[i].as_chunks().0[g]);
        }
        for j in 0..Q {
            let x = wide(&x[j].as_chunks().0[g]);
            for i in 0..R {
                acc[j][i] = _mm256_add_epi32(acc[j][i], _mm256_madd_epi16(w[i], x));
            }
        }
    }
    let mut sums = [[0; R]; Q];
    for j in 0..Q {
        for i in 0..R {
            let rest = rows[i][16 * n..].iter().zip(&x[j][16 * n..]);
            sums[j][i] = total(acc[j][i]) + rest.map(|(&a, &b)| i32::from(a) * i32::from(b)).sum::<i32>();
        }
    }
    sums
}

#[target_feature(enable = "avx2")]
#[inline]
fn interleave([a, b, c, d]: [&[i8]; 4], out: &mut [[i8; 4]]) {
    let (a, b, c, d) = (a.as_chunks().0, b.as_chunks().0, c.as_chunks().0, d.as_chunks().0);
    for (i, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (a, b, c, d): (&[i8; 16], &[i8; 16], &[i8; 16], &[i8; 16]) = (&a[i], &b[i], &c[i], &d[i]);
        // SAFETY: each load reads 16 bytes of an array of 16, the stores write the 64 bytes of `out`.
        unsafe {
            let (a, b) = (_mm_loadu_si128(a.as_ptr().cast()), _mm_loadu_si128(b.as_ptr().cast()));
            let (c, d) = (_mm_loadu_si128(c.as_ptr().cast()), _mm_loadu_si128(d.as_ptr().cast()));
            let (ab, cd) = (_mm_unpacklo_epi8(a, b), _mm_unpacklo_epi8(c, d));
            let (ab_high, cd_high) = (_mm_unpackhi_epi8(a, b), _mm_unpackhi_epi8(c, d));
            let out: *mut __m128i = out.as_mut_ptr().cast();
            _mm_storeu_si128(out, _mm_unpacklo_epi16(ab, cd));
            _mm_storeu_si128(out.add(1), _mm_unpackhi_epi16(ab, cd));
            _mm_storeu_si128(out.add(2), _mm_unpacklo_epi16(ab_high, cd_high));
            _mm_storeu_si128(out.add(3), _mm_unpackhi_epi16(ab_high, cd_high));
        }
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn quad_sums(codes: &[[u8; 4]], quads: &[[i8; 4]], stride: usize, sums: &mut [i32; BLOCK_COLUMNS]) {
    let mut acc = [_mm256_setzero_si256(); BLOCK_COLUMNS / 8];
    let ones = _mm256_set1_epi16(1);
    for (q, code) in codes.iter().enumerate() {
        let code = _mm256_set1_epi32(i32::from_le_bytes(*code));
        let (quads, _) = quads[q * stride..][..BLOCK_COLUMNS].as_chunks::<8>();
        for (acc, quads) in acc.iter_mut().zip(quads) {
            // SAFETY: the load reads the 32 bytes of eight quads.
            let quads = unsafe { _mm256_loadu_si256(quads.as_ptr().cast()) };
            *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(_mm256_maddubs_epi16(code, quads), ones));
        }
    }
    for (acc, sums) in acc.into_iter().zip(sums.as_chunks_mut::<8>().0) {
        // SAFETY: the store writes the eight sums.
        unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), acc) };
    }
}
