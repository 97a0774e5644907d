//! Tiles of five trits per byte by NEON: 64 bytes are four registers.

use std::arch::aarch64::*;

use super::Neon;
use super::registers::{leading_trits, triple};
use crate::arch::methods::vector_methods;
use crate::simd::{GROUP_ROWS, RowBytes, TritTileSimd};

/// Bytes 16 k .. 16 k + 16 at k.
type Rows = [uint8x16_t; 4];

impl<const DOTPROD: bool> RowBytes for Neon<DOTPROD> {
    type Rows = Rows;

    vector_methods! {
        fn load_rows(self, bytes: &[u8; GROUP_ROWS]) -> Rows {
            let (quarters, _) = bytes.as_chunks::<16>();
            [
                vld1q_u8(quarters[0].as_ptr()),
                vld1q_u8(quarters[1].as_ptr()),
                vld1q_u8(quarters[2].as_ptr()),
                vld1q_u8(quarters[3].as_ptr()),
            ]
        }
        fn store_rows(self, a: Rows, bytes: &mut [u8; GROUP_ROWS]) {
            for (bytes, a) in bytes.as_chunks_mut::<16>().0.iter_mut().zip(a) {
                vst1q_u8(bytes.as_mut_ptr(), a);
            }
        }
        fn zero_rows(self) -> Rows {
            [vdupq_n_u8(0); 4]
        }
    }
}

impl<const DOTPROD: bool> TritTileSimd for Neon<DOTPROD> {
    vector_methods! {
        fn triple_rows(self, a: Rows) -> Rows {
            [triple(a[0]), triple(a[1]), triple(a[2]), triple(a[3])]
        }
        fn add_trits(self, sums: Rows, fractions: Rows, unit: u8) -> Rows {
            let unit = vdupq_n_u8(unit);
            [
                vmlaq_u8(sums[0], leading_trits(fractions[0]), unit),
                vmlaq_u8(sums[1], leading_trits(fractions[1]), unit),
                vmlaq_u8(sums[2], leading_trits(fractions[2]), unit),
                vmlaq_u8(sums[3], leading_trits(fractions[3]), unit),
            ]
        }
    }
}
