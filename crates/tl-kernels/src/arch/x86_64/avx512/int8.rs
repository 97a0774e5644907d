//! The INT8 operations with AVX-512 BW, and with VNNI.
//!
//! `vpdpbusd` wants one unsigned operand. In a dot it is the row plus 128, and 128 times the sum of the other vector is
//! taken off again; in weighted sums it is the code. Without VNNI, `vpmaddubsw` multiplies: a pair of products of values
//! up to 127 is at most 32,258, below the limit of 32,767.

use std::arch::x86_64::*;

use super::Avx512;
use crate::simd::{BLOCK_QUADS, Group, Int8, ROWS, Vector};

/// Registers of a group.
const WIDTH: usize = ROWS / 16;

impl<const VNNI: bool> Int8 for Avx512<VNNI> {
    #[inline(always)]
    fn dots_i8<const V: usize>(self, x: [Vector<'_>; V], span: &[Group<[i8; 4]>], sums: &mut [[i32; ROWS]; V]) {
        // SAFETY: `self` is the proof that the machine has these features.
        unsafe { if VNNI { dots_vnni(x, span, sums) } else { dots(x, span, sums) } }
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
        // SAFETY: as above.
        unsafe { if VNNI { quad_sums_vnni(codes, quads, sums) } else { quad_sums(codes, quads, sums) } }
    }
    #[inline(always)]
    fn halve_codes(self, codes: &[f32; ROWS], high: &mut [[u8; 4]; ROWS / 4], low: &mut [[u8; 4]; ROWS / 4]) {
        // SAFETY: as above.
        unsafe { halve_codes(codes, high, low) }
    }
}

/// The four registers of a group.
#[target_feature(enable = "avx512f")]
#[inline]
fn load(group: &Group<[i8; 4]>) -> [__m512i; WIDTH] {
    let mut loaded = [_mm512_setzero_si512(); WIDTH];
    for (loaded, part) in loaded.iter_mut().zip(group.0.as_chunks::<16>().0) {
        // SAFETY: the load reads the 64 bytes of sixteen quads.
        *loaded = unsafe { _mm512_loadu_si512(part.as_ptr().cast()) };
    }
    loaded
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(from: [__m512i; WIDTH], sums: &mut [i32; ROWS]) {
    for (from, part) in from.into_iter().zip(sums.as_chunks_mut::<16>().0) {
        // SAFETY: the store writes the sixteen sums.
        unsafe { _mm512_storeu_si512(part.as_mut_ptr().cast(), from) };
    }
}

/// A quad in every element.
#[target_feature(enable = "avx512f")]
#[inline]
fn splat(quad: [i8; 4]) -> __m512i {
    _mm512_set1_epi32(i32::from_le_bytes(quad.map(i8::cast_unsigned)))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn dots_vnni<const V: usize>(x: [Vector<'_>; V], span: &[Group<[i8; 4]>], sums: &mut [[i32; ROWS]; V]) {
    let mut x_quads: [&[[i8; 4]]; V] = [&[]; V];
    for j in 0..V {
        x_quads[j] = &x[j].quads[..span.len()];
    }
    let mut acc = [[_mm512_setzero_si512(); WIDTH]; V];
    for j in 0..V {
        acc[j] = [_mm512_set1_epi32(-128 * x[j].sum); WIDTH];
    }
    for (q, group) in span.iter().enumerate() {
        let mut rows = load(group);
        for rows in &mut rows {
            *rows = _mm512_xor_si512(*rows, _mm512_set1_epi8(-128));
        }
        for j in 0..V {
            let x = splat(x_quads[j][q]);
            for i in 0..WIDTH {
                acc[j][i] = _mm512_dpbusd_epi32(acc[j][i], rows[i], x);
            }
        }
    }
    for j in 0..V {
        store(acc[j], &mut sums[j]);
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn dots<const V: usize>(x: [Vector<'_>; V], span: &[Group<[i8; 4]>], sums: &mut [[i32; ROWS]; V]) {
    let mut x_quads: [&[[i8; 4]]; V] = [&[]; V];
    for j in 0..V {
        x_quads[j] = &x[j].quads[..span.len()];
    }
    let (zero, ones) = (_mm512_setzero_si512(), _mm512_set1_epi16(1));
    let mut acc = [[zero; WIDTH]; V];
    for (q, group) in span.iter().enumerate() {
        let rows = load(group);
        for j in 0..V {
            // The sign of x goes to the row, so that |x| is the unsigned operand.
            let x = splat(x_quads[j][q]);
            let (negative, size) = (_mm512_movepi8_mask(x), _mm512_abs_epi8(x));
            for i in 0..WIDTH {
                let signed = _mm512_mask_sub_epi8(rows[i], negative, zero, rows[i]);
                let pairs = _mm512_maddubs_epi16(size, signed);
                acc[j][i] = _mm512_add_epi32(acc[j][i], _mm512_madd_epi16(pairs, ones));
            }
        }
    }
    for j in 0..V {
        store(acc[j], &mut sums[j]);
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn turn(block: &[Group<[i8; 4]>; BLOCK_QUADS], out: &mut [Group<[i8; 4]>; BLOCK_QUADS]) {
    // Within each quarter register, four rows of four columns become four columns of four rows.
    let square = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    for (c, quads) in block.as_chunks::<4>().0.iter().enumerate() {
        let quads = [load(&quads[0]), load(&quads[1]), load(&quads[2]), load(&quads[3])];
        for i in 0..WIDTH {
            let (a, b) = (_mm512_shuffle_epi8(quads[0][i], square), _mm512_shuffle_epi8(quads[1][i], square));
            let (c_, d) = (_mm512_shuffle_epi8(quads[2][i], square), _mm512_shuffle_epi8(quads[3][i], square));
            // Quarter l of the four has the rows 16 i + 4 l ..: these quarters go side by side.
            let (ab, ab_last) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xee>(a, b));
            let (cd, cd_last) = (_mm512_shuffle_i32x4::<0x44>(c_, d), _mm512_shuffle_i32x4::<0xee>(c_, d));
            let rows = [
                _mm512_shuffle_i32x4::<0x88>(ab, cd),
                _mm512_shuffle_i32x4::<0xdd>(ab, cd),
                _mm512_shuffle_i32x4::<0x88>(ab_last, cd_last),
                _mm512_shuffle_i32x4::<0xdd>(ab_last, cd_last),
            ];
            for (l, rows) in rows.into_iter().enumerate() {
                let part = &mut out[4 * i + l].0.as_chunks_mut::<16>().0[c];
                // SAFETY: the store writes the 64 bytes of sixteen quads.
                unsafe { _mm512_storeu_si512(part.as_mut_ptr().cast(), rows) };
            }
        }
    }
}

/// Writes a function that sums products of codes and quads, given the expression that adds one register of them.
macro_rules! quad_sums {
    ($name:ident, $features:literal, $acc:ident, $code:ident, $quads:ident => $add:expr) => {
        #[target_feature(enable = $features)]
        #[inline]
        fn $name<const V: usize, const P: usize>(
            codes: [[&[[u8; 4]]; P]; V],
            quads: &[Group<[i8; 4]>; BLOCK_QUADS],
            sums: &mut [[i32; ROWS]; V],
        ) {
            let mut acc = [[[_mm512_setzero_si512(); WIDTH]; P]; V];
            let n = codes[0][0].len();
            let mut codes = codes;
            for codes in codes.as_flattened_mut() {
                *codes = &codes[..n];
            }
            for (q, group) in quads[..n].iter().enumerate() {
                let group = load(group);
                for j in 0..V {
                    for p in 0..P {
                        let $code = _mm512_set1_epi32(i32::from_le_bytes(codes[j][p][q]));
                        for i in 0..WIDTH {
                            let ($acc, $quads) = (acc[j][p][i], group[i]);
                            acc[j][p][i] = $add;
                        }
                    }
                }
            }
            for j in 0..V {
                let mut total = acc[j][0];
                for i in 0..WIDTH {
                    total[i] = _mm512_slli_epi32::<7>(total[i]);
                    if let Some(low) = acc[j].get(1) {
                        total[i] = _mm512_add_epi32(total[i], low[i]);
                    }
                }
                store(total, &mut sums[j]);
            }
        }
    };
}

quad_sums!(quad_sums_vnni, "avx512f,avx512bw,avx512vnni", acc, code, quads => _mm512_dpbusd_epi32(acc, code, quads));
quad_sums!(quad_sums, "avx512f,avx512bw", acc, code, quads => _mm512_add_epi32(
    acc,
    _mm512_madd_epi16(_mm512_maddubs_epi16(code, quads), _mm512_set1_epi16(1))
));

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn halve_codes(codes: &[f32; ROWS], high: &mut [[u8; 4]; ROWS / 4], low: &mut [[u8; 4]; ROWS / 4]) {
    let halves = high.as_chunks_mut::<4>().0.iter_mut().zip(low.as_chunks_mut::<4>().0);
    for ((high, low), codes) in halves.zip(codes.as_chunks::<16>().0) {
        // SAFETY: the load reads sixteen codes, the stores write sixteen bytes each.
        unsafe {
            let codes = _mm512_cvttps_epi32(_mm512_loadu_ps(codes.as_ptr()));
            let low_bits = _mm512_and_si512(codes, _mm512_set1_epi32(127));
            _mm_storeu_si128(high.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(_mm512_srli_epi32::<7>(codes)));
            _mm_storeu_si128(low.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(low_bits));
        }
    }
}
