//! Tiles of five trits per byte by AVX-512: 64 bytes are one register.
//!
//! ```text
//! VNNI        dpbusd of fractions: sums below 255 * 127 * 256 = 8.3 million, three of them below 2^31
//! BW alone    maddubs of codes: a pair of products is at most 2 * 2 * 127 = 508, the 64 pairs of a block 32,512
//! ```
//! A table of 256 entries by `vpermi2b` (VBMI) takes more time on Zen 4 than the second product of each trit.

use std::arch::x86_64::*;

use ternary_core::BLOCK;

use super::Avx512;
use super::registers::triple64;
use super::tile::{broadcast, finish};
use crate::arch::methods::vector_methods;
use crate::simd::{COLUMNS, GROUP_ROWS, QUADS, RowBytes, TILE, TokenBlock, TritBlock, TritTileSimd};

impl<const VNNI: bool> RowBytes for Avx512<VNNI> {
    type Rows = __m512i;

    vector_methods! {
        fn load_rows(self, bytes: &[u8; GROUP_ROWS]) -> __m512i {
            _mm512_loadu_si512(bytes.as_ptr().cast())
        }
        fn store_rows(self, a: __m512i, bytes: &mut [u8; GROUP_ROWS]) {
            _mm512_storeu_si512(bytes.as_mut_ptr().cast(), a);
        }
        fn zero_rows(self) -> __m512i {
            _mm512_setzero_si512()
        }
    }
}

impl<const VNNI: bool> TritTileSimd for Avx512<VNNI> {
    vector_methods! {
        fn triple_rows(self, a: __m512i) -> __m512i {
            triple64(a)
        }
        fn add_trits(self, sums: __m512i, fractions: __m512i, unit: u8) -> __m512i {
            add_trits(sums, fractions, unit)
        }
    }

    const TRIT_TOKENS: usize = if VNNI { 8 } else { 1 };

    #[inline(always)]
    fn trit_block<const T: usize>(self, block: &TritBlock, tokens: &[TokenBlock<'_>; T], acc: &mut [[f32; TILE]; T]) {
        // SAFETY: `self` is the proof that the machine has the instructions these functions are compiled for.
        unsafe { if VNNI { by_fractions(block, tokens, acc) } else { by_codes(block, tokens, acc) } }
    }
}

/// Four bytes of each of sixteen rows, of half `h` of column `k`.
#[target_feature(enable = "avx512f")]
#[inline]
fn load(block: &TritBlock, k: usize, h: usize) -> __m512i {
    let half: &[u8] = &block.codes[k][64 * h..64 * h + 64];
    // SAFETY: 64 bytes are read from a slice of 64.
    unsafe { _mm512_loadu_si512(half.as_ptr().cast()) }
}

/// `sums + unit * (3 fractions >> 8)`: the code is 1 from 86 on, 2 from 171 on.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn add_trits(sums: __m512i, fractions: __m512i, unit: u8) -> __m512i {
    let unit = _mm512_set1_epi8(unit.cast_signed());
    let first = _mm512_cmpgt_epu8_mask(fractions, _mm512_set1_epi8(85));
    let second = _mm512_cmpgt_epu8_mask(fractions, _mm512_set1_epi8(170u8.cast_signed()));
    let sums = _mm512_mask_add_epi8(sums, first, sums, unit);
    _mm512_mask_add_epi8(sums, second, sums, unit)
}

/// Sums by token and half of a tile. Even and odd trits have sums of their own, because additions to a single sum would
/// wait for each other; from two tokens on, other sums fill that time, and the odd ones stay 0.
type Sums<const T: usize> = [[[__m512i; 2]; 2]; T];

/// Adds the products of `f_n` and those of `f_(n+1)` for the `N` trits of column `k`.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn add_fractions<const N: usize, const T: usize>(
    block: &TritBlock,
    k: usize,
    tokens: &[TokenBlock<'_>; T],
    these: &mut Sums<T>,
    next: &mut Sums<T>,
) {
    let mut fractions = [load(block, k, 0), load(block, k, 1)];
    for n in 0..N {
        let following = [triple64(fractions[0]), triple64(fractions[1])];
        let which = if T == 1 { n % 2 } else { 0 };
        for j in 0..T {
            let acts = broadcast(tokens[j].codes, QUADS[k][n]);
            for h in 0..2 {
                these[j][h][which] = _mm512_dpbusd_epi32(these[j][h][which], fractions[h], acts);
                next[j][h][which] = _mm512_dpbusd_epi32(next[j][h][which], following[h], acts);
            }
        }
        fractions = following;
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
#[inline]
fn by_fractions<const T: usize>(block: &TritBlock, tokens: &[TokenBlock<'_>; T], acc: &mut [[f32; TILE]; T]) {
    let mut these = [[[_mm512_setzero_si512(); 2]; 2]; T];
    let mut next = these;
    for k in 0..COLUMNS - 1 {
        add_fractions::<5, T>(block, k, tokens, &mut these, &mut next);
    }
    add_fractions::<4, T>(block, COLUMNS - 1, tokens, &mut these, &mut next);
    for j in 0..T {
        for h in 0..2 {
            let these = _mm512_add_epi32(these[j][h][0], these[j][h][1]);
            let next = _mm512_add_epi32(next[j][h][0], next[j][h][1]);
            let sums = _mm512_sub_epi32(_mm512_add_epi32(_mm512_slli_epi32::<1>(these), these), next);
            finish(&block.scales, h, _mm512_srai_epi32::<8>(sums), &tokens[j], &mut acc[j]);
        }
    }
}

/// Adds the products of the codes of the `N` trits of column `k`.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn add_codes<const N: usize>(block: &TritBlock, k: usize, codes: &[i8; BLOCK], sums: &mut [__m512i; 2]) {
    let mut fractions = [load(block, k, 0), load(block, k, 1)];
    for n in 0..N {
        let acts = broadcast(codes, QUADS[k][n]);
        for h in 0..2 {
            let codes = add_trits(_mm512_setzero_si512(), fractions[h], 1);
            sums[h] = _mm512_add_epi16(sums[h], _mm512_maddubs_epi16(codes, acts));
            fractions[h] = triple64(fractions[h]);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,f16c,fma")]
#[inline]
fn by_codes<const T: usize>(block: &TritBlock, tokens: &[TokenBlock<'_>; T], acc: &mut [[f32; TILE]; T]) {
    for j in 0..T {
        let mut sums = [_mm512_setzero_si512(); 2];
        for k in 0..COLUMNS - 1 {
            add_codes::<5>(block, k, tokens[j].codes, &mut sums);
        }
        add_codes::<4>(block, COLUMNS - 1, tokens[j].codes, &mut sums);
        for h in 0..2 {
            finish(&block.scales, h, _mm512_madd_epi16(sums[h], _mm512_set1_epi16(1)), &tokens[j], &mut acc[j]);
        }
    }
}
