//! The lookup operations with NEON: 64 rows are four registers, `tbl` looks up 16 of them.

use std::arch::aarch64::*;

use super::Neon;
use crate::arch::methods::vector_methods;
use crate::simd::{GROUP_ROWS, Lookup};

/// Bytes 16 k .. 16 k + 16 at k.
type Rows = [uint8x16_t; 4];

/// Sums of the first and of the last eight rows of each register.
type Wide = [[int16x8_t; 2]; 4];

impl<const DOTPROD: bool> Lookup for Neon<DOTPROD> {
    type Table = uint8x16_t;
    type Wide = Wide;

    vector_methods! {
        fn load_table(self, entries: &[i8; 16]) -> uint8x16_t {
            vreinterpretq_u8_s8(vld1q_s8(entries.as_ptr()))
        }
        fn low_nibbles(self, a: Rows) -> Rows {
            let mask = vdupq_n_u8(15);
            [vandq_u8(a[0], mask), vandq_u8(a[1], mask), vandq_u8(a[2], mask), vandq_u8(a[3], mask)]
        }
        fn high_nibbles(self, a: Rows) -> Rows {
            [vshrq_n_u8::<4>(a[0]), vshrq_n_u8::<4>(a[1]), vshrq_n_u8::<4>(a[2]), vshrq_n_u8::<4>(a[3])]
        }
        fn look_up(self, table: uint8x16_t, index: Rows) -> Rows {
            [
                vqtbl1q_u8(table, index[0]),
                vqtbl1q_u8(table, index[1]),
                vqtbl1q_u8(table, index[2]),
                vqtbl1q_u8(table, index[3]),
            ]
        }
        fn add_rows(self, a: Rows, b: Rows) -> Rows {
            [vaddq_u8(a[0], b[0]), vaddq_u8(a[1], b[1]), vaddq_u8(a[2], b[2]), vaddq_u8(a[3], b[3])]
        }
        fn negate_rows(self, a: Rows, signs: Rows) -> Rows {
            [
                negate(a[0], signs[0]),
                negate(a[1], signs[1]),
                negate(a[2], signs[2]),
                negate(a[3], signs[3]),
            ]
        }
        fn double_rows(self, a: Rows) -> Rows {
            [vaddq_u8(a[0], a[0]), vaddq_u8(a[1], a[1]), vaddq_u8(a[2], a[2]), vaddq_u8(a[3], a[3])]
        }
        fn zero_wide(self) -> Wide {
            [[vdupq_n_s16(0); 2]; 4]
        }
        fn widen_add(self, sums: Wide, a: Rows) -> Wide {
            [widen(sums[0], a[0]), widen(sums[1], a[1]), widen(sums[2], a[2]), widen(sums[3], a[3])]
        }
        fn combine(self, hi: Wide, lo: Wide, factor: i16) -> [i16; GROUP_ROWS] {
            let mut out = [0; GROUP_ROWS];
            for ((hi, lo), out) in hi.iter().zip(&lo).zip(out.as_chunks_mut::<16>().0) {
                let (first, last) = out.split_at_mut(8);
                vst1q_s16(first.as_mut_ptr(), vmlaq_n_s16(lo[0], hi[0], factor));
                vst1q_s16(last.as_mut_ptr(), vmlaq_n_s16(lo[1], hi[1], factor));
            }
            out
        }
    }
}

/// `-a` where bit 7 of the sign is set: (a ^ -1) - -1.
#[target_feature(enable = "neon")]
#[inline]
fn negate(a: uint8x16_t, signs: uint8x16_t) -> uint8x16_t {
    let mask = vcltzq_s8(vreinterpretq_s8_u8(signs));
    vsubq_u8(veorq_u8(a, mask), mask)
}

/// `[first + bytes 0..8 of a, last + bytes 8..16 of a]`
#[target_feature(enable = "neon")]
#[inline]
fn widen([first, last]: [int16x8_t; 2], a: uint8x16_t) -> [int16x8_t; 2] {
    let a = vreinterpretq_s8_u8(a);
    [vaddw_s8(first, vget_low_s8(a)), vaddw_high_s8(last, a)]
}
