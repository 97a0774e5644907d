//! Tiles of five trits per byte by WASM SIMD128: 64 bytes are four vectors.

use std::arch::wasm32::*;

use super::Simd128;
use super::registers::vector;
use crate::simd::{GROUP_ROWS, RowBytes, TritTileSimd};

/// Bytes 16 k .. 16 k + 16 at k.
type Rows = [v128; 4];

impl RowBytes for Simd128 {
    type Rows = Rows;

    #[inline(always)]
    fn load_rows(self, bytes: &[u8; GROUP_ROWS]) -> Rows {
        let (quarters, _) = bytes.as_chunks::<16>();
        std::array::from_fn(|k| vector(&quarters[k]))
    }
    #[inline(always)]
    fn store_rows(self, a: Rows, bytes: &mut [u8; GROUP_ROWS]) {
        for (bytes, a) in bytes.as_chunks_mut::<16>().0.iter_mut().zip(a) {
            // SAFETY: the store writes the sixteen bytes of an array, at any address.
            unsafe { v128_store(bytes.as_mut_ptr().cast(), a) };
        }
    }
    #[inline(always)]
    fn zero_rows(self) -> Rows {
        [i8x16_splat(0); 4]
    }
}

impl TritTileSimd for Simd128 {
    #[inline(always)]
    fn triple_rows(self, a: Rows) -> Rows {
        a.map(|a| i8x16_add(i8x16_add(a, a), a))
    }
    #[inline(always)]
    fn add_trits(self, sums: Rows, fractions: Rows, unit: u8) -> Rows {
        let unit = u8x16_splat(unit);
        std::array::from_fn(|k| {
            let first = v128_and(u8x16_gt(fractions[k], u8x16_splat(85)), unit);
            let second = v128_and(u8x16_gt(fractions[k], u8x16_splat(170)), unit);
            i8x16_add(i8x16_add(sums[k], first), second)
        })
    }
}
