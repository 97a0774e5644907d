//! The INT8 operations with AVX-512 BW, and with VNNI.
//!
//! `vpdpbusd` wants one unsigned operand. In a dot it is the row plus 128, and 128 times the sum of the other vector is
//! taken off again; in weighted sums it is the code.

use std::arch::x86_64::*;

use super::{BLOCK_COLUMNS, Int8};
use crate::arch::avx512::Avx512;

/// Registers of a block of columns.
const WIDTH: usize = BLOCK_COLUMNS / 16;

impl<const VNNI: bool> Int8 for Avx512<VNNI> {
    #[inline(always)]
    fn dots_i8<const R: usize, const Q: usize>(
        self,
        rows: [&[i8]; R],
        x: [&[i8]; Q],
        x_sums: [i32; Q],
    ) -> [[i32; R]; Q] {
        // SAFETY: `self` is the proof that the machine has these features.
        unsafe { if VNNI { dots_vnni(rows, x, x_sums) } else { super::avx2::dots(rows, x) } }
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
        // SAFETY: as above.
        unsafe { if VNNI { quad_sums_vnni(codes, quads, stride) } else { quad_sums(codes, quads, stride) } }
    }
}

/// 64 bytes.
#[target_feature(enable = "avx512f")]
#[inline]
fn load(bytes: &[i8; 64]) -> __m512i {
    // SAFETY: the load reads the 64 bytes.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// The bytes of a slice shorter than 64, then zeros.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn load_rest(bytes: &[i8]) -> __m512i {
    let mask = (1u64 << (bytes.len() % 64)) - 1;
    // SAFETY: the mask has one bit per byte of the slice; no other byte is read.
    unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn dots_vnni<const R: usize, const Q: usize>(rows: [&[i8]; R], x: [&[i8]; Q], x_sums: [i32; Q]) -> [[i32; R]; Q] {
    let n = x[0].len() / 64;
    let offset = _mm512_set1_epi8(-128);
    let mut row_groups: [&[[i8; 64]]; R] = [&[]; R];
    for i in 0..R {
        row_groups[i] = &rows[i].as_chunks().0[..n];
    }
    let mut x_groups: [&[[i8; 64]]; Q] = [&[]; Q];
    for j in 0..Q {
        x_groups[j] = &x[j].as_chunks().0[..n];
    }
    let mut acc = [[_mm512_setzero_si512(); R]; Q];
    for g in 0..n {
        let mut w = [offset; R];
        for i in 0..R {
            w[i] = _mm512_xor_si512(load(&row_groups[i][g]), offset);
        }
        for j in 0..Q {
            let x = load(&x_groups[j][g]);
            for i in 0..R {
                acc[j][i] = _mm512_dpbusd_epi32(acc[j][i], w[i], x);
            }
        }
    }
    if 64 * n < x[0].len() {
        let mut w = [offset; R];
        for i in 0..R {
            w[i] = _mm512_xor_si512(load_rest(&rows[i][64 * n..]), offset);
        }
        for j in 0..Q {
            let x = load_rest(&x[j][64 * n..]);
            for i in 0..R {
                acc[j][i] = _mm512_dpbusd_epi32(acc[j][i], w[i], x);
            }
        }
    }
    let mut sums = [[0; R]; Q];
    for j in 0..Q {
        if let (&[a, b, c, d], [four]) = (acc[j].as_slice(), sums[j].as_chunks_mut::<4>().0) {
            *four = totals([a, b, c, d]);
        } else {
            for i in 0..R {
                sums[j][i] = _mm512_reduce_add_epi32(acc[j][i]);
            }
        }
        for sum in &mut sums[j] {
            *sum -= 128 * x_sums[j];
        }
    }
    sums
}

/// The sums of sixteen, four times.
#[target_feature(enable = "avx512f")]
#[inline]
fn totals([a, b, c, d]: [__m512i; 4]) -> [i32; 4] {
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    let abcd = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let half = _mm256_add_epi32(_mm512_castsi512_si256(abcd), _mm512_extracti64x4_epi64::<1>(abcd));
    let four = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
    let mut out = [0; 4];
    // SAFETY: the store writes the four elements.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), four) };
    out
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn interleave([a, b, c, d]: [&[i8]; 4], out: &mut [[i8; 4]]) {
    let (a, b, c, d) = (a.as_chunks().0, b.as_chunks().0, c.as_chunks().0, d.as_chunks().0);
    for (i, out) in out.as_chunks_mut::<BLOCK_COLUMNS>().0.iter_mut().enumerate() {
        let (a, b, c, d) = (load(&a[i]), load(&b[i]), load(&c[i]), load(&d[i]));
        // Quarter register l of x_k has the quads of the columns 16 l + 4 k ..; out wants them by ascending column.
        let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
        let (x0, x1) = (_mm512_unpacklo_epi16(ab, cd), _mm512_unpackhi_epi16(ab, cd));
        let (ab, cd) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
        let (x2, x3) = (_mm512_unpacklo_epi16(ab, cd), _mm512_unpackhi_epi16(ab, cd));
        let (first, last) = (_mm512_shuffle_i32x4::<0x44>(x0, x1), _mm512_shuffle_i32x4::<0xee>(x0, x1));
        let (first_high, last_high) = (_mm512_shuffle_i32x4::<0x44>(x2, x3), _mm512_shuffle_i32x4::<0xee>(x2, x3));
        let ordered = [
            _mm512_shuffle_i32x4::<0x88>(first, first_high),
            _mm512_shuffle_i32x4::<0xdd>(first, first_high),
            _mm512_shuffle_i32x4::<0x88>(last, last_high),
            _mm512_shuffle_i32x4::<0xdd>(last, last_high),
        ];
        for (out, quads) in out.as_chunks_mut::<16>().0.iter_mut().zip(ordered) {
            // SAFETY: the store writes the 64 bytes of sixteen quads.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), quads) };
        }
    }
}

/// Writes a function that sums products of codes and quads, given what adds one register of them.
macro_rules! quad_sums {
    ($name:ident, $features:literal, $acc:ident, $code:ident, $quads:ident => $add:expr) => {
        #[target_feature(enable = $features)]
        #[inline]
        fn $name<const Q: usize>(
            codes: [&[[u8; 4]]; Q],
            quads: &[[i8; 4]],
            stride: usize,
        ) -> [[i32; BLOCK_COLUMNS]; Q] {
            let mut acc = [[_mm512_setzero_si512(); WIDTH]; Q];
            let n = codes[0].len();
            let codes = codes.map(|codes| &codes[..n]);
            for q in 0..n {
                let (block, _) = quads[q * stride..][..BLOCK_COLUMNS].as_chunks::<16>();
                let mut w = [_mm512_setzero_si512(); WIDTH];
                for i in 0..WIDTH {
                    // SAFETY: the load reads the 64 bytes of sixteen quads.
                    w[i] = unsafe { _mm512_loadu_si512(block[i].as_ptr().cast()) };
                }
                for j in 0..Q {
                    let $code = _mm512_set1_epi32(i32::from_le_bytes(codes[j][q]));
                    for i in 0..WIDTH {
                        let ($acc, $quads) = (acc[j][i], w[i]);
                        acc[j][i] = $add;
                    }
                }
            }
            let mut sums = [[0; BLOCK_COLUMNS]; Q];
            for j in 0..Q {
                for (acc, sums) in acc[j].into_iter().zip(sums[j].as_chunks_mut::<16>().0) {
                    // SAFETY: the store writes the sixteen sums.
                    unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), acc) };
                }
            }
            sums
        }
    };
}

quad_sums!(quad_sums_vnni, "avx512f,avx512bw,avx512vnni", acc, code, quads => _mm512_dpbusd_epi32(acc, code, quads));
// A pair of products of a code up to 127 and a value is at most 32,258, below the limit of 32,767.
quad_sums!(quad_sums, "avx512f,avx512bw", acc, code, quads => _mm512_add_epi32(
    acc,
    _mm512_madd_epi16(_mm512_maddubs_epi16(code, quads), _mm512_set1_epi16(1))
));
