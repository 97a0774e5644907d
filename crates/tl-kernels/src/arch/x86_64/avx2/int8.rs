//! The INT8 operations with AVX2.
//!
//! `vpmaddubsw` multiplies: a pair of products of values up to 127 is at most 32,258, below the limit of 32,767. Its
//! unsigned operand is the code, or the magnitude of a vector whose sign goes to the row.

use std::arch::x86_64::*;

use super::Avx2;
use crate::simd::{BLOCK_QUADS, Group, Int8, ROWS, Vector};

/// Registers of a group.
const WIDTH: usize = ROWS / 8;

impl<const VNNI: bool> Int8 for Avx2<VNNI> {
    #[inline(always)]
    fn dots_i8<const V: usize>(self, x: [Vector<'_>; V], span: &[Group<[i8; 4]>], sums: &mut [[i32; ROWS]; V]) {
        for (x, sums) in x.into_iter().zip(sums) {
            // SAFETY: `self` is the proof that the machine has these features.
            unsafe { dots(x, span, sums) }
        }
    }
    #[inline(always)]
    fn turn(self, block: &[Group<[i8; 4]>; BLOCK_QUADS], out: &mut [Group<[i8; 4]>; BLOCK_QUADS]) {
        // SAFETY: as above.
        unsafe { turn(block, out) }
    }
    #[inline(always)]
    fn quad_sums<const V: usize, const P: usize>(
        self,
        codes: [[&[[u8; 4]]; P]; V],
        quads: &[Group<[i8; 4]>; BLOCK_QUADS],
        sums: &mut [[i32; ROWS]; V],
    ) {
        for (codes, sums) in codes.into_iter().zip(sums) {
            // SAFETY: as above.
            unsafe { quad_sums(codes, quads, sums) }
        }
    }
}

/// Register `i` of a group.
#[target_feature(enable = "avx2")]
#[inline]
fn load(group: &Group<[i8; 4]>, i: usize) -> __m256i {
    let quads = &group.0.as_chunks::<8>().0[i];
    // SAFETY: the load reads the 32 bytes of eight quads.
    unsafe { _mm256_loadu_si256(quads.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(from: [__m256i; WIDTH], sums: &mut [i32; ROWS]) {
    for (from, part) in from.into_iter().zip(sums.as_chunks_mut::<8>().0) {
        // SAFETY: the store writes the eight sums.
        unsafe { _mm256_storeu_si256(part.as_mut_ptr().cast(), from) };
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn dots(x: Vector<'_>, span: &[Group<[i8; 4]>], sums: &mut [i32; ROWS]) {
    let mut acc = [_mm256_setzero_si256(); WIDTH];
    let ones = _mm256_set1_epi16(1);
    for (x, group) in x.quads.iter().zip(span) {
        let x = _mm256_set1_epi32(i32::from_le_bytes(x.map(i8::cast_unsigned)));
        let size = _mm256_abs_epi8(x);
        for i in 0..WIDTH {
            let pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(load(group, i), x));
            acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(pairs, ones));
        }
    }
    store(acc, sums);
}

#[target_feature(enable = "avx2")]
#[inline]
fn turn(block: &[Group<[i8; 4]>; BLOCK_QUADS], out: &mut [Group<[i8; 4]>; BLOCK_QUADS]) {
    // Within each half register, four rows of four columns become four columns of four rows.
    let square = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let square = _mm256_broadcastsi128_si256(square);
    for (c, quads) in block.as_chunks::<2>().0.iter().enumerate() {
        for i in 0..WIDTH {
            let a = _mm256_shuffle_epi8(load(&quads[0], i), square);
            let b = _mm256_shuffle_epi8(load(&quads[1], i), square);
            let rows = [_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b)];
            for (l, rows) in rows.into_iter().enumerate() {
                let part = &mut out[2 * i + l].0.as_chunks_mut::<8>().0[c];
                // SAFETY: the store writes the 32 bytes of eight quads.
                unsafe { _mm256_storeu_si256(part.as_mut_ptr().cast(), rows) };
            }
        }
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn quad_sums<const P: usize>(codes: [&[[u8; 4]]; P], quads: &[Group<[i8; 4]>; BLOCK_QUADS], sums: &mut [i32; ROWS]) {
    let ones = _mm256_set1_epi16(1);
    let mut total = [_mm256_setzero_si256(); WIDTH];
    for (p, codes) in codes.into_iter().enumerate() {
        let mut acc = [_mm256_setzero_si256(); WIDTH];
        for (code, group) in codes.iter().zip(quads) {
            let code = _mm256_set1_epi32(i32::from_le_bytes(*code));
            for i in 0..WIDTH {
                let pairs = _mm256_maddubs_epi16(code, load(group, i));
                acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(pairs, ones));
            }
        }
        for i in 0..WIDTH {
            let counted = if p == 0 { _mm256_slli_epi32::<7>(acc[i]) } else { acc[i] };
            total[i] = _mm256_add_epi32(total[i], counted);
        }
    }
    store(total, sums);
}
