//! The operations of the lookup kernels (TL1, TL2): a byte shuffle and a few additions, over 64 rows at once.
//!
//! **Invariant:** every implementation gives the bits of the expression in the documentation, row by row. Byte additions
//! wrap; the bounds of `activations/lookup_table.rs` keep them from ever doing so.
//!
//! An instruction set without look-ups of its own names [`PortableLookup`] as its [`Simd::Lookup`](super::Simd::Lookup).

use super::{GROUP_ROWS, RowBytes};

/// Byte operations over 64 rows.
pub trait Lookup: RowBytes {
    /// A table of 16 bytes in the form that look-ups take.
    type Table: Copy;
    /// An i16 for each row.
    type Wide: Copy;

    /// Reads the entries of a table.
    fn load_table(self, entries: &[i8; 16]) -> Self::Table;
    /// `a & 15`, row by row.
    fn low_nibbles(self, a: Self::Rows) -> Self::Rows;
    /// `a >> 4`, row by row.
    fn high_nibbles(self, a: Self::Rows) -> Self::Rows;
    /// `table[index]`, for indices 0..=15.
    fn look_up(self, table: Self::Table, index: Self::Rows) -> Self::Rows;
    /// `a + b`, row by row.
    fn add_rows(self, a: Self::Rows, b: Self::Rows) -> Self::Rows;
    /// `if signs < 0 { -a } else { a }`
    fn negate_rows(self, a: Self::Rows, signs: Self::Rows) -> Self::Rows;
    /// `a << 1`, row by row.
    fn double_rows(self, a: Self::Rows) -> Self::Rows;
    /// 0 in every row.
    fn zero_wide(self) -> Self::Wide;
    /// `sums + a`, `a` as signed bytes.
    fn widen_add(self, sums: Self::Wide, a: Self::Rows) -> Self::Wide;
    /// `hi * factor + lo`, modulo 2^16.
    fn combine(self, hi: Self::Wide, lo: Self::Wide, factor: i16) -> [i16; GROUP_ROWS];
}

/// Look-ups in plain Rust: they define the results of the other instruction sets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PortableLookup;

impl RowBytes for PortableLookup {
    type Rows = [u8; GROUP_ROWS];

    #[inline(always)]
    fn load_rows(self, bytes: &[u8; GROUP_ROWS]) -> Self::Rows {
        *bytes
    }
    #[inline(always)]
    fn store_rows(self, a: Self::Rows, bytes: &mut [u8; GROUP_ROWS]) {
        *bytes = a;
    }
    #[inline(always)]
    fn zero_rows(self) -> Self::Rows {
        [0; GROUP_ROWS]
    }
}

impl Lookup for PortableLookup {
    type Table = [i8; 16];
    type Wide = [i16; GROUP_ROWS];

    #[inline(always)]
    fn load_table(self, entries: &[i8; 16]) -> Self::Table {
        *entries
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
