//! Tiles of five trits per byte by AVX2, with or without AVX-VNNI: 64 bytes are two registers.
//!
//! ```text
//! AVX-VNNI     dpbusd of fractions: sums below 255 * 127 * 256 = 8.3 million, three of them below 2^31
//! AVX2 alone   maddubs of codes: a pair of products is at most 2 * 2 * 127 = 508, the 64 pairs of a block 32,512
//! ```

use std::arch::x86_64::*;

use ternary_core::BLOCK;

use super::Avx2;
use super::registers::{FOURS, add_products, triple32};
use super::tile::{broadcast, finish};
use crate::arch::methods::vector_methods;
use crate::simd::{COLUMNS, GROUP_ROWS, QUADS, RowBytes, TILE, TokenBlock, TritBlock, TritTileSimd};

impl<const VNNI: bool> RowBytes for Avx2<VNNI> {
    type Rows = [__m256i; 2];

    vector_methods! {
        fn load_rows(self, bytes: &[u8; GROUP_ROWS]) -> [__m256i; 2] {
            [_mm256_loadu_si256(bytes.as_ptr().cast()), _mm256_loadu_si256(bytes[32..].as_ptr().cast())]
        }
        fn store_rows(self, a: [__m256i; 2], bytes: &mut [u8; GROUP_ROWS]) {
            for (bytes, a) in bytes.as_chunks_mut::<32>().0.iter_mut().zip(a) {
                _mm256_storeu_si256(bytes.as_mut_ptr().cast(), a);
            }
        }
        fn zero_rows(self) -> [__m256i; 2] {
            [_mm256_setzero_si256(); 2]
        }
    }
}

impl<const VNNI: bool> TritTileSimd for Avx2<VNNI> {
    vector_methods! {
        fn triple_rows(self, a: [__m256i; 2]) -> [__m256i; 2] {
            [triple32(a[0]), triple32(a[1])]
        }
        fn add_trits(self, sums: [__m256i; 2], fractions: [__m256i; 2], unit: u8) -> [__m256i; 2] {
            [add_trits(sums[0], fractions[0], unit), add_trits(sums[1], fractions[1], unit)]
        }
    }

    #[inline(always)]
    fn trit_block<const T: usize>(self, block: &TritBlock, tokens: &[TokenBlock<'_>; T], acc: &mut [[f32; TILE]; T]) {
        for (token, acc) in tokens.iter().zip(acc) {
            // SAFETY: `self` is the proof that the machine has the instructions these functions are compiled for.
            unsafe { if VNNI { by_fractions::<FOURS>(block, token, acc) } else { by_codes(block, token, acc) } }
        }
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

/// Column `k`, which is read whole, so that memory is read in the order of addresses.
#[target_feature(enable = "avx2")]
#[inline]
fn load(block: &TritBlock, k: usize) -> [__m256i; 4] {
    let mut column = [_mm256_setzero_si256(); 4];
    for g in 0..4 {
        let eight: &[u8] = &block.codes[k][32 * g..32 * g + 32];
        // SAFETY: 32 bytes are read from a slice of 32.
        column[g] = unsafe { _mm256_loadu_si256(eight.as_ptr().cast()) };
    }
    column
}

/// Adds the products of the codes of the `N` trits of column `k`.
/// 3 (f + 128) = 3 f + 128 modulo 256: flipped fractions stay flipped.
#[target_feature(enable = "avx2")]
#[inline]
fn add_codes<const N: usize>(block: &TritBlock, k: usize, codes: &[i8; BLOCK], sums: &mut [__m256i; 4]) {
    let mut flipped = load(block, k);
    for g in 0..4 {
        flipped[g] = _mm256_xor_si256(flipped[g], _mm256_set1_epi8(i8::MIN));
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
fn by_codes(block: &TritBlock, token: &TokenBlock<'_>, acc: &mut [f32; TILE]) {
    let mut sums = [_mm256_setzero_si256(); 4];
    for k in 0..COLUMNS - 1 {
        add_codes::<5>(block, k, token.codes, &mut sums);
    }
    add_codes::<4>(block, COLUMNS - 1, token.codes, &mut sums);
    for g in 0..4 {
        finish(&block.scales, g, _mm256_madd_epi16(sums[g], _mm256_set1_epi16(1)), token, acc);
    }
}

/// Adds the products of `f_n` and those of `f_(n+1)` for the `N` trits of column `k`.
///
/// # Safety
/// As for [`add_products`].
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn add_fractions<const FORM: u8, const N: usize>(
    block: &TritBlock,
    k: usize,
    codes: &[i8; BLOCK],
    these: &mut [__m256i; 4],
    next: &mut [__m256i; 4],
) {
    let mut fractions = load(block, k);
    for n in 0..N {
        let acts = broadcast(codes, QUADS[k][n]);
        for g in 0..4 {
            // SAFETY: as the caller promises.
            unsafe {
                these[g] = add_products::<FORM>(these[g], fractions[g], acts);
                fractions[g] = triple32(fractions[g]);
                next[g] = add_products::<FORM>(next[g], fractions[g], acts);
            }
        }
    }
}

/// # Safety
/// As for [`add_products`], for a form that multiplies in fours.
#[target_feature(enable = "avx2,f16c,fma")]
#[inline]
unsafe fn by_fractions<const FORM: u8>(block: &TritBlock, token: &TokenBlock<'_>, acc: &mut [f32; TILE]) {
    let mut these = [_mm256_setzero_si256(); 4];
    let mut next = these;
    // SAFETY: as the caller promises.
    unsafe {
        for k in 0..COLUMNS - 1 {
            add_fractions::<FORM, 5>(block, k, token.codes, &mut these, &mut next);
        }
        add_fractions::<FORM, 4>(block, COLUMNS - 1, token.codes, &mut these, &mut next);
    }
    for g in 0..4 {
        let three = _mm256_add_epi32(_mm256_slli_epi32::<1>(these[g]), these[g]);
        finish(&block.scales, g, _mm256_srai_epi32::<8>(_mm256_sub_epi32(three, next[g])), token, acc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Scalar;
    use crate::arch::instruction_set::InstructionSet;
    use crate::arch::x86_64::avx2::registers::FOURS_EVEX;

    /// The body of AVX-VNNI by the other encoding of its instruction, which more machines have.
    #[test]
    #[allow(clippy::print_stdout, reason = "a missing form must be seen in the test's output")]
    fn fractions_give_the_sums_of_codes() {
        let evex = is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl");
        if Avx2::<false>::detect().is_none() || !evex {
            println!("SKIP tiles of avxvnni: no avx512vnni and avx512vl to try them with");
            return;
        }
        for seed in 0..20usize {
            let codes = std::array::from_fn(|k| std::array::from_fn(|i| (i * 37 + k * 11 + i * k + seed) as u8));
            let scales = std::array::from_fn(|r| half::f16::from_f32(0.5 + (r * seed) as f32 / 64.0).to_le_bytes());
            let block = TritBlock { codes, scales };
            let acts = std::array::from_fn(|i| if seed == 0 { 127 } else { (i * 89 + seed) as u8 as i8 }.max(-127));
            let token = TokenBlock { codes: &acts, sum: 9, scale: 0.25 };
            let (mut expected, mut got) = ([0.5; TILE], [0.5; TILE]);
            Scalar::detect().unwrap().trit_block(&block, &[token], std::array::from_mut(&mut expected));
            // SAFETY: detected above.
            unsafe { by_fractions::<FOURS_EVEX>(&block, &token, &mut got) };
            assert_eq!(got, expected);
        }
    }
}
