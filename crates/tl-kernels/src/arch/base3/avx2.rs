//! Tiles of five trits per byte by AVX2: 64 bytes are two registers.
//!
//! A pair of products is at most 2 * 2 * 127 = 508, and the 64 pairs of a block 32,512: they fit 16 bits.

use std::arch::x86_64::*;

use ternary_core::BLOCK;

use super::super::avx2::{Avx2, triple32};
use super::super::tile::avx2::{broadcast, finish};
use super::super::vector_methods;
use super::GROUP_ROWS;
use crate::base3::{Base3Block, Base3Simd, COLUMNS, QUADS};
use crate::tile::{TILE, TokenBlock};

impl Base3Simd for Avx2 {
    vector_methods! {
        fn store_rows(self, a: [__m256i; 2], bytes: &mut [u8; GROUP_ROWS]) {
            for (bytes, a) in bytes.as_chunks_mut::<32>().0.iter_mut().zip(a) {
                _mm256_storeu_si256(bytes.as_mut_ptr().cast(), a);
            }
        }
        fn triple_rows(self, a: [__m256i; 2]) -> [__m256i; 2] {
            [triple32(a[0]), triple32(a[1])]
        }
        fn add_trits(self, sums: [__m256i; 2], fractions: [__m256i; 2], unit: u8) -> [__m256i; 2] {
            [add_trits(sums[0], fractions[0], unit), add_trits(sums[1], fractions[1], unit)]
        }
    }

    #[inline(always)]
    fn base3_block(self, block: &Base3Block, token: &TokenBlock<'_>, acc: &mut [f32; TILE]) {
        // SAFETY: `self` is the proof that the machine has the instructions this function is compiled for.
        unsafe { by_codes(block, token, acc) }
    }
}

/// -1 where the code is at least 1, and where it is 2: from the fractions 86 and 171 on. Comparisons of signed bytes need
/// the sign bit of the fractions flipped: 85 is -43 then, 170 is 42.
#[target_feature(enable = "avx2")]
#[inline]
fn thresholds(flipped: __m256i) -> (__m256i, __m256i) {
    let first = _mm256_cmpgt_epi8(flipped, _mm256_set1_epi8(-43));
    (first, _mm256_cmpgt_epi8(flipped, _mm256_set1_epi8(42)))
}

/// `sums + unit * (3 fractions >> 8)`
#[target_feature(enable = "avx2")]
#[inline]
fn add_trits(sums: __m256i, fractions: __m256i, unit: u8) -> __m256i {
    let (first, second) = thresholds(_mm256_xor_si256(fractions, _mm256_set1_epi8(i8::MIN)));
    let unit = _mm256_set1_epi8(unit.cast_signed());
    let sums = _mm256_add_epi8(sums, _mm256_and_si256(first, unit));
    _mm256_add_epi8(sums, _mm256_and_si256(second, unit))
}

/// Adds the products of the `N` trits of column `k`, which is read whole, so that memory is read in one line.
/// 3 (f + 128) = 3 f + 128 modulo 256: flipped fractions stay flipped.
#[target_feature(enable = "avx2")]
#[inline]
fn add_codes<const N: usize>(block: &Base3Block, k: usize, codes: &[i8; BLOCK], sums: &mut [__m256i; 4]) {
    let mut flipped = [_mm256_set1_epi8(i8::MIN); 4];
    for g in 0..4 {
        let eight: &[u8] = &block.codes[k][32 * g..32 * g + 32];
        // SAFETY: 32 bytes are read from a slice of 32.
        flipped[g] = _mm256_xor_si256(flipped[g], unsafe { _mm256_loadu_si256(eight.as_ptr().cast()) });
    }
    for n in 0..N {
        let acts = broadcast(codes, QUADS[k][n]);
        for g in 0..4 {
            let (first, second) = thresholds(flipped[g]);
            let codes = _mm256_abs_epi8(_mm256_add_epi8(first, second));
            sums[g] = _mm256_add_epi16(sums[g], _mm256_maddubs_epi16(codes, acts));
            flipped[g] = triple32(flipped[g]);
        }
    }
}

#[target_feature(enable = "avx2,f16c,fma")]
#[inline]
fn by_codes(block: &Base3Block, token: &TokenBlock<'_>, acc: &mut [f32; TILE]) {
    let mut sums = [_mm256_setzero_si256(); 4];
    for k in 0..COLUMNS - 1 {
        add_codes::<5>(block, k, token.codes, &mut sums);
    }
    add_codes::<4>(block, COLUMNS - 1, token.codes, &mut sums);
    for g in 0..4 {
        finish(&block.scales, g, _mm256_madd_epi16(sums[g], _mm256_set1_epi16(1)), token, acc);
    }
}
