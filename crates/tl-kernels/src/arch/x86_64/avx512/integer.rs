//! Products of Q8_0, Q6_K and Q2_0 blocks with INT8 activations, with AVX-512 BW and with VNNI.
//!
//! `vpdpbusd` wants one unsigned operand: the Q8_0 weight plus 128, and 128 times the activations is taken off again. Pairs
//! of Q6_K and Q2_0 products stay in 16 bits as in the AVX2 form.

use std::arch::x86_64::*;

use ternary_core::BLOCK;

use crate::simd::LANES;

/// The products of Q8_0 blocks: see `Simd::dots_q8`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
#[inline]
pub(super) fn dots_q8_vnni(blocks: [&[u8; 34]; 4], acts: &[i8; 32]) -> [__m512i; 4] {
    // SAFETY: the load reads the 32 activations.
    let acts = unsafe { _mm256_loadu_si256(acts.as_ptr().cast()) };
    let sum = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), acts);
    let offset = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32::<7>(sum));
    let mut sums = [_mm512_setzero_si512(); 4];
    for (sums, block) in sums.iter_mut().zip(blocks) {
        // SAFETY: the load reads the 32 bytes behind the scale.
        let weights = unsafe { _mm256_loadu_si256(block[2..].as_ptr().cast()) };
        let unsigned = _mm256_xor_si256(weights, _mm256_set1_epi8(-128));
        *sums = _mm512_zextsi256_si512(_mm256_dpbusd_epi32(offset, unsigned, acts));
    }
    sums
}

/// Sixteen rows of eight dwords as eight registers of sixteen: see `Simd::transpose_quads`.
#[target_feature(enable = "avx512f,avx2")]
#[inline]
pub(super) fn transpose_quads(rows: &[[i8; 32]; LANES], quads: &mut [[[i8; 4]; LANES]; 8]) {
    // x[4 g + i]: row 8 g + i in the lower half, row 8 g + 4 + i in the upper one.
    let mut x = [_mm512_setzero_si512(); 8];
    for (k, x) in x.iter_mut().enumerate() {
        let r = 8 * (k / 4) + k % 4;
        // SAFETY: each load reads the 32 bytes of a row.
        let [low, high] =
            unsafe { [_mm256_loadu_si256(rows[r].as_ptr().cast()), _mm256_loadu_si256(rows[r + 4].as_ptr().cast())] };
        *x = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
    }
    // by_four[g][k]: in quarters 0 and 2 dword k of four rows each, in quarters 1 and 3 dword 4 + k.
    let mut by_four = [[_mm512_setzero_si512(); 4]; 2];
    for (out, x) in by_four.iter_mut().zip(x.as_chunks::<4>().0) {
        let (ab_low, ab_high) = (_mm512_unpacklo_epi32(x[0], x[1]), _mm512_unpackhi_epi32(x[0], x[1]));
        let (cd_low, cd_high) = (_mm512_unpacklo_epi32(x[2], x[3]), _mm512_unpackhi_epi32(x[2], x[3]));
        *out = [
            _mm512_unpacklo_epi64(ab_low, cd_low),
            _mm512_unpackhi_epi64(ab_low, cd_low),
            _mm512_unpacklo_epi64(ab_high, cd_high),
            _mm512_unpackhi_epi64(ab_high, cd_high),
        ];
    }
    for k in 0..4 {
        let (a, b) = (by_four[0][k], by_four[1][k]);
        // SAFETY: each store writes the 64 bytes of a register's place.
        unsafe {
            _mm512_storeu_si512(quads[k].as_mut_ptr().cast(), _mm512_shuffle_i32x4::<0x88>(a, b));
            _mm512_storeu_si512(quads[4 + k].as_mut_ptr().cast(), _mm512_shuffle_i32x4::<0xdd>(a, b));
        }
    }
}

/// See `Simd::dots_q2`. A block is one register; the steps are those of the AVX2 form.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
#[inline]
pub(super) fn dots_q2(blocks: [&[u8; 18]; 4], acts: &[i8; 96]) -> [__m512i; 4] {
    // SAFETY: the loads read 32 activations each.
    let x = unsafe { [_mm256_loadu_si256(acts.as_ptr().cast()), _mm256_loadu_si256(acts[64..].as_ptr().cast())] };
    let x = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(x[0]), x[1]);
    let offset = _mm512_maddubs_epi16(_mm512_set1_epi8(1), x);
    // Each byte four times, for the four weights in it.
    let fours = _mm_setr_epi8(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    let quarter = _mm512_setr_epi64(
        0,
        0,
        0x0404_0404_0404_0404,
        0x0404_0404_0404_0404,
        0x0808_0808_0808_0808,
        0x0808_0808_0808_0808,
        0x0c0c_0c0c_0c0c_0c0c,
        0x0c0c_0c0c_0c0c_0c0c,
    );
    let fours = _mm512_add_epi8(_mm512_broadcast_i32x4(fours), quarter);
    let code = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 3, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0));
    let mut sums = [_mm512_setzero_si512(); 4];
    for (sum, block) in sums.iter_mut().zip(blocks) {
        // SAFETY: the load reads the 16 bytes behind the scale.
        let packed = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(block[2..].as_ptr().cast()) });
        let bytes = _mm512_shuffle_epi8(packed, fours);
        let nibbles = _mm512_mask_blend_epi16(0xaaaa_aaaa, bytes, _mm512_srli_epi16::<4>(bytes));
        let codes = _mm512_shuffle_epi8(code, _mm512_and_si512(nibbles, _mm512_set1_epi16(0x0c03)));
        let pairs = _mm512_sub_epi16(_mm512_maddubs_epi16(codes, x), offset);
        *sum = _mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
    }
    sums
}

/// See `Simd::dots_q6`. Quarter k of both halves of the block is one register, as are the activations it meets.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
#[inline]
pub(super) fn dots_q6(blocks: [&[u8; 210]; 4], acts: &[i8; BLOCK]) -> [__m512i; 4] {
    let (bias, nibble, all) = (_mm512_set1_epi8(32), _mm512_set1_epi8(15), _mm512_set1_epi8(63));
    let mut x = [_mm512_setzero_si512(); 4];
    let mut offsets = [_mm512_setzero_si512(); 4];
    for (k, acts) in acts.as_chunks::<64>().0.iter().enumerate() {
        // SAFETY: the load reads 64 activations.
        x[k] = unsafe { _mm512_loadu_si512(acts.as_ptr().cast()) };
        offsets[k] = _mm512_maddubs_epi16(bias, x[k]);
    }
    // Word g of the scales for each pair of products: group 8 h + 2 k + p lies in quarter register 2 h + p.
    let first = _mm512_set_epi64(
        0x0009_0009_0009_0009,
        0x0009_0009_0009_0009,
        0x0008_0008_0008_0008,
        0x0008_0008_0008_0008,
        0x0001_0001_0001_0001,
        0x0001_0001_0001_0001,
        0,
        0,
    );
    let mut sums = [_mm512_setzero_si512(); 4];
    for (sums, block) in sums.iter_mut().zip(blocks) {
        // SAFETY: the loads read the 128, 64 and 16 bytes of low bits, high bits and scales.
        let (low0, low1, high, scales) = unsafe {
            (
                _mm512_loadu_si512(block.as_ptr().cast()),
                _mm512_loadu_si512(block[64..].as_ptr().cast()),
                _mm512_loadu_si512(block[128..].as_ptr().cast()),
                _mm_loadu_si128(block[192..].as_ptr().cast()),
            )
        };
        let even = _mm512_shuffle_i64x2::<0x44>(low0, low1);
        let odd = _mm512_shuffle_i64x2::<0xee>(low0, low1);
        // 0xca: bits of the second operand where the first has ones, else of the third.
        let codes = [
            _mm512_ternarylogic_epi32::<0xca>(nibble, even, _mm512_slli_epi16::<4>(high)),
            _mm512_ternarylogic_epi32::<0xca>(nibble, odd, _mm512_slli_epi16::<2>(high)),
            _mm512_ternarylogic_epi32::<0xca>(nibble, _mm512_srli_epi16::<4>(even), high),
            _mm512_ternarylogic_epi32::<0xca>(nibble, _mm512_srli_epi16::<4>(odd), _mm512_srli_epi16::<2>(high)),
        ];
        let scales = _mm512_castsi256_si512(_mm256_cvtepi8_epi16(scales));
        let mut total = _mm512_setzero_si512();
        for k in 0..4 {
            let pairs = _mm512_maddubs_epi16(_mm512_and_si512(codes[k], all), x[k]);
            let pairs = _mm512_sub_epi16(pairs, offsets[k]);
            let which = _mm512_add_epi16(first, _mm512_set1_epi16(2 * k as i16));
            let products = _mm512_madd_epi16(pairs, _mm512_permutexvar_epi16(which, scales));
            total = _mm512_add_epi32(total, products);
        }
        *sums = total;
    }
    sums
}
