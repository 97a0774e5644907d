//! The lookup operations with WASM SIMD128: 64 rows are four registers, `i8x16.swizzle` looks up 16 of them.

use std::arch::wasm32::*;

use super::Simd128;
use super::registers::{store, vector};
use crate::simd::{GROUP_ROWS, Lookup};

/// Bytes 16 k .. 16 k + 16 at k.
type Rows = [v128; 4];

/// Sums of the first and of the last eight rows of each register.
type Wide = [[v128; 2]; 4];

impl Lookup for Simd128 {
    type Table = v128;
    type Wide = Wide;

    #[inline(always)]
    fn load_table(self, entries: &[i8; 16]) -> v128 {
        vector(&entries.map(i8::cast_unsigned))
    }
    #[inline(always)]
    fn low_nibbles(self, a: Rows) -> Rows {
        a.map(|a| v128_and(a, i8x16_splat(15)))
    }
    #[inline(always)]
    fn high_nibbles(self, a: Rows) -> Rows {
        a.map(|a| u8x16_shr(a, 4))
    }
    #[inline(always)]
    fn look_up(self, table: v128, index: Rows) -> Rows {
        index.map(|index| i8x16_swizzle(table, index))
    }
    #[inline(always)]
    fn add_rows(self, a: Rows, b: Rows) -> Rows {
        std::array::from_fn(|k| i8x16_add(a[k], b[k]))
    }
    #[inline(always)]
    fn negate_rows(self, a: Rows, signs: Rows) -> Rows {
        // (a ^ -1) - -1 where bit 7 of the sign is set.
        let masks = signs.map(|signs| i8x16_shr(signs, 7));
        std::array::from_fn(|k| i8x16_sub(v128_xor(a[k], masks[k]), masks[k]))
    }
    #[inline(always)]
    fn double_rows(self, a: Rows) -> Rows {
        a.map(|a| i8x16_add(a, a))
    }
    #[inline(always)]
    fn zero_wide(self) -> Wide {
        [[i16x8_splat(0); 2]; 4]
    }
    #[inline(always)]
    fn widen_add(self, sums: Wide, a: Rows) -> Wide {
        std::array::from_fn(|k| {
            let [first, last] = sums[k];
            [i16x8_add(first, i16x8_extend_low_i8x16(a[k])), i16x8_add(last, i16x8_extend_high_i8x16(a[k]))]
        })
    }
    #[inline(always)]
    fn combine(self, hi: Wide, lo: Wide, factor: i16) -> [i16; GROUP_ROWS] {
        let mut out = [0; GROUP_ROWS];
        let sums = |hi, lo| i16x8_add(i16x8_mul(hi, i16x8_splat(factor)), lo);
        for (k, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            store(sums(hi[k / 2][k % 2], lo[k / 2][k % 2]), out);
        }
        out
    }
}
