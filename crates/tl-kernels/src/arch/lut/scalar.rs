//! The lookup operations in plain Rust: the definition of what the other levels must give.

use super::{GROUP_ROWS, Lookup};
use crate::arch::Scalar;

impl Lookup for Scalar {
    type Rows = [u8; GROUP_ROWS];
    type Table = [i8; 16];
    type Wide = [i16; GROUP_ROWS];

    #[inline(always)]
    fn load_rows(self, bytes: &[u8; GROUP_ROWS]) -> Self::Rows {
        *bytes
    }
    #[inline(always)]
    fn load_table(self, entries: &[i8; 16]) -> Self::Table {
        *entries
    }
    #[inline(always)]
    fn zero_rows(self) -> Self::Rows {
        [0; GROUP_ROWS]
    }
    #[inline(always)]
    fn low_nibbles(self, a: Self::Rows) -> Self::Rows {
        a.map(|a| a & 15)
    }
    #[inline(always)]
    fn high_nibbles(self, a: Self::Rows) -> Self::Rows {
        a.map(|a| a >> 4)
    }
    #[inline(always)]
    fn look_up(self, table: Self::Table, index: Self::Rows) -> Self::Rows {
        index.map(|i| table[usize::from(i & 15)].cast_unsigned())
    }
    #[inline(always)]
    fn add_rows(self, a: Self::Rows, b: Self::Rows) -> Self::Rows {
        std::array::from_fn(|r| a[r].wrapping_add(b[r]))
    }
    #[inline(always)]
    fn negate_rows(self, a: Self::Rows, signs: Self::Rows) -> Self::Rows {
        std::array::from_fn(|r| if signs[r] > 127 { a[r].wrapping_neg() } else { a[r] })
    }
    #[inline(always)]
    fn double_rows(self, a: Self::Rows) -> Self::Rows {
        a.map(|a| a << 1)
    }
    #[inline(always)]
    fn zero_wide(self) -> Self::Wide {
        [0; GROUP_ROWS]
    }
    #[inline(always)]
    fn widen_add(self, sums: Self::Wide, a: Self::Rows) -> Self::Wide {
        std::array::from_fn(|r| sums[r].wrapping_add(i16::from(a[r].cast_signed())))
    }
    #[inline(always)]
    fn combine(self, hi: Self::Wide, lo: Self::Wide, factor: i16) -> [i16; GROUP_ROWS] {
        std::array::from_fn(|r| hi[r].wrapping_mul(factor).wrapping_add(lo[r]))
    }
}
