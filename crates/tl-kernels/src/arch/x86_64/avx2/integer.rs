//! Products of Q8_0, Q6_K and Q2_0 blocks with INT8 activations, with AVX2.
//!
//! `vpmaddubsw` multiplies. For Q8_0 its unsigned operand is the magnitude of the weight, whose sign goes to the
//! activation: a pair is at most 2 * 128 * 127 = 32,512. For Q6_K it is `q` in 0..=63, and 32 times the activations is
//! taken off again: a pair is at most 2 * 63 * 127 + 2 * 32 * 127 = 24,130. For Q2_0 it is the code, and once the
//! activations is taken off again.

use std::arch::x86_64::*;

use ternary_core::BLOCK;

use crate::simd::LANES;

/// The products of Q8_0 blocks: see `Simd::dots_q8`.
#[target_feature(enable = "avx2")]
#[inline]
pub(in crate::arch::x86_64) fn dots_q8(blocks: [&[u8; 34]; 4], acts: &[i8; 32]) -> [__m256i; 4] {
    // SAFETY: the load reads the 32 activations.
    let acts = unsafe { _mm256_loadu_si256(acts.as_ptr().cast()) };
    let mut sums = [_mm256_setzero_si256(); 4];
    for (sums, block) in sums.iter_mut().zip(blocks) {
        // SAFETY: the load reads the 32 bytes behind the scale.
        let weights = unsafe { _mm256_loadu_si256(block[2..].as_ptr().cast()) };
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(acts, weights));
        *sums = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
    sums
}

/// Two times eight rows of eight dwords as eight registers: see `Simd::transpose_quads`.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn transpose_quads(rows: &[[i8; 32]; LANES], quads: &mut [[[i8; 4]; LANES]; 8]) {
    for half in 0..2 {
        let mut x = [_mm256_setzero_si256(); 8];
        for (x, row) in x.iter_mut().zip(&rows[8 * half..]) {
            // SAFETY: the load reads the 32 bytes of a row.
            *x = unsafe { _mm256_loadu_si256(row.as_ptr().cast()) };
        }
        // by_four[g][k]: dword k of four rows in the lower half, dword 4 + k in the upper one.
        let mut by_four = [[_mm256_setzero_si256(); 4]; 2];
        for (out, x) in by_four.iter_mut().zip(x.as_chunks::<4>().0) {
            let (ab_low, ab_high) = (_mm256_unpacklo_epi32(x[0], x[1]), _mm256_unpackhi_epi32(x[0], x[1]));
            let (cd_low, cd_high) = (_mm256_unpacklo_epi32(x[2], x[3]), _mm256_unpackhi_epi32(x[2], x[3]));
            *out = [
                _mm256_unpacklo_epi64(ab_low, cd_low),
                _mm256_unpackhi_epi64(ab_low, cd_low),
                _mm256_unpacklo_epi64(ab_high, cd_high),
                _mm256_unpackhi_epi64(ab_high, cd_high),
            ];
        }
        for k in 0..4 {
            let (a, b) = (by_four[0][k], by_four[1][k]);
            // SAFETY: each store writes 32 bytes, eight of the sixteen rows of a quad.
            unsafe {
                let low = quads[k][8 * half..8 * half + 8].as_mut_ptr();
                _mm256_storeu_si256(low.cast(), _mm256_permute2x128_si256::<0x20>(a, b));
                let high = quads[4 + k][8 * half..8 * half + 8].as_mut_ptr();
                _mm256_storeu_si256(high.cast(), _mm256_permute2x128_si256::<0x31>(a, b));
            }
        }
    }
}

/// The products of Q2_0 blocks: see `Simd::dots_q2`.
#[target_feature(enable = "avx2")]
#[inline]
pub(in crate::arch::x86_64) fn dots_q2(blocks: [&[u8; 18]; 4], acts: &[i8; 96]) -> [__m256i; 4] {
    let ones = _mm256_set1_epi8(1);
    // SAFETY: the loads read 32 activations each.
    let x = unsafe { [_mm256_loadu_si256(acts.as_ptr().cast()), _mm256_loadu_si256(acts[64..].as_ptr().cast())] };
    let offset = _mm256_add_epi16(_mm256_maddubs_epi16(ones, x[0]), _mm256_maddubs_epi16(ones, x[1]));
    // Each byte four times, for the four weights in it: bytes 0..8 of the block, then 8..16.
    let first = _mm256_setr_epi8(
        0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7,
    );
    let last = _mm256_add_epi8(first, _mm256_set1_epi8(8));
    let mut sums = [_mm256_setzero_si256(); 4];
    for (sum, block) in sums.iter_mut().zip(blocks) {
        // SAFETY: the load reads the 16 bytes behind the scale.
        let packed = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(block[2..].as_ptr().cast()) });
        let a = q2_codes(_mm256_shuffle_epi8(packed, first));
        let b = q2_codes(_mm256_shuffle_epi8(packed, last));
        let pairs = _mm256_add_epi16(_mm256_maddubs_epi16(a, x[0]), _mm256_maddubs_epi16(b, x[1]));
        *sum = _mm256_madd_epi16(_mm256_sub_epi16(pairs, offset), _mm256_set1_epi16(1));
    }
    sums
}

/// Code k of byte k of each dword. Two codes lie in the low half of their byte, two are moved there; every second of them
/// is four times too large, which a look-up mends.
#[target_feature(enable = "avx2")]
#[inline]
fn q2_codes(bytes: __m256i) -> __m256i {
    let nibbles = _mm256_blend_epi16::<0xaa>(bytes, _mm256_srli_epi16::<4>(bytes));
    let code = _mm256_setr_epi8(
        0, 1, 2, 3, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 1, 2, 3, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0,
    );
    _mm256_shuffle_epi8(code, _mm256_and_si256(nibbles, _mm256_set1_epi16(0x0c03)))
}

/// The products of Q6_K blocks: see `Simd::dots_q6`.
#[target_feature(enable = "avx2")]
#[inline]
pub(in crate::arch::x86_64) fn dots_q6(blocks: [&[u8; 210]; 4], acts: &[i8; BLOCK]) -> [__m256i; 4] {
    let (runs, _) = acts.as_chunks::<32>();
    let (bias, nibble, top) = (_mm256_set1_epi8(32), _mm256_set1_epi8(15), _mm256_set1_epi8(48));
    let mut sums = [_mm256_setzero_si256(); 4];
    for half in 0..2 {
        // Run 2 k + half of the activations meets quarter k of this half.
        let mut x = [_mm256_setzero_si256(); 4];
        let mut offsets = [_mm256_setzero_si256(); 4];
        for k in 0..4 {
            // SAFETY: the load reads a run of 32.
            x[k] = unsafe { _mm256_loadu_si256(runs[2 * k + half].as_ptr().cast()) };
            offsets[k] = _mm256_maddubs_epi16(bias, x[k]);
        }
        for (sums, block) in sums.iter_mut().zip(blocks) {
            // SAFETY: the loads read 64, 32 and 8 of the 128, 64 and 16 bytes of low bits, high bits and scales.
            let (even, odd, high, scales) = unsafe {
                (
                    _mm256_loadu_si256(block[64 * half..].as_ptr().cast()),
                    _mm256_loadu_si256(block[64 * half + 32..].as_ptr().cast()),
                    _mm256_loadu_si256(block[128 + 32 * half..].as_ptr().cast()),
                    _mm_loadl_epi64(block[192 + 8 * half..].as_ptr().cast()),
                )
            };
            let codes = [
                _mm256_or_si256(_mm256_and_si256(even, nibble), _mm256_and_si256(_mm256_slli_epi16::<4>(high), top)),
                _mm256_or_si256(_mm256_and_si256(odd, nibble), _mm256_and_si256(_mm256_slli_epi16::<2>(high), top)),
                _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16::<4>(even), nibble), _mm256_and_si256(high, top)),
                _mm256_or_si256(
                    _mm256_and_si256(_mm256_srli_epi16::<4>(odd), nibble),
                    _mm256_and_si256(_mm256_srli_epi16::<2>(high), top),
                ),
            ];
            // Eight scales as words; quarter k has the scales 2 k and 2 k + 1, one per half register.
            let scales = _mm256_broadcastsi128_si256(_mm_cvtepi8_epi16(scales));
            let word = _mm256_setr_epi8(
                0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3,
            );
            for k in 0..4 {
                let pairs = _mm256_sub_epi16(_mm256_maddubs_epi16(codes[k], x[k]), offsets[k]);
                let which = _mm256_add_epi8(word, _mm256_set1_epi8(4 * k as i8));
                let products = _mm256_madd_epi16(pairs, _mm256_shuffle_epi8(scales, which));
                *sums = _mm256_add_epi32(*sums, products);
            }
        }
    }
    sums
}
