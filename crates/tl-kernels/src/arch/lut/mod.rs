//! What the lookup kernels (TL1, TL2) need of a vector unit: a byte shuffle and a few additions, over 64 rows at once.
//!
//! **Invariant:** as in `vector.rs`, every implementation gives the bits of the expression in the documentation, row by
//! row. Byte additions wrap; that they never do is the caller's bound (`lut.rs`).

mod scalar;

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
mod avx2;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
mod avx512;

#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
mod neon;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[allow(unsafe_code, reason = "loads and stores of vectors")]
mod wasm;

/// Rows that share a table look-up: one byte each.
pub(crate) const GROUP_ROWS: usize = 64;

/// Byte operations over 64 rows.
pub trait Lookup: Copy {
    /// One byte per row.
    type Rows: Copy;
    /// A table of 16 bytes, where look-ups can use it.
    type Table: Copy;
    /// One i16 per row.
    type Wide: Copy;

    /// The bytes of 64 rows.
    fn load_rows(self, bytes: &[u8; GROUP_ROWS]) -> Self::Rows;
    /// A table.
    fn load_table(self, entries: &[i8; 16]) -> Self::Table;
    /// 0 in every row.
    fn zero_rows(self) -> Self::Rows;
    /// `a & 15`
    fn low_nibbles(self, a: Self::Rows) -> Self::Rows;
    /// `a >> 4`
    fn high_nibbles(self, a: Self::Rows) -> Self::Rows;
    /// `table[index]`, for indices 0..=15.
    fn look_up(self, table: Self::Table, index: Self::Rows) -> Self::Rows;
    /// `a + b`
    fn add_rows(self, a: Self::Rows, b: Self::Rows) -> Self::Rows;
    /// `if signs < 0 { -a } else { a }`
    fn negate_rows(self, a: Self::Rows, signs: Self::Rows) -> Self::Rows;
    /// `a << 1`
    fn double_rows(self, a: Self::Rows) -> Self::Rows;
    /// 0 in every row.
    fn zero_wide(self) -> Self::Wide;
    /// `sums + a`, `a` as signed bytes.
    fn widen_add(self, sums: Self::Wide, a: Self::Rows) -> Self::Wide;
    /// `hi * factor + lo`, modulo 2^16.
    fn combine(self, hi: Self::Wide, lo: Self::Wide, factor: i16) -> [i16; GROUP_ROWS];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::vector::{Kernel, Simd};

    /// One of each operation, on bytes that tell rows and bits apart.
    struct Each;

    impl Kernel for Each {
        type Output = Vec<[i16; GROUP_ROWS]>;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let bytes: [u8; GROUP_ROWS] = std::array::from_fn(|i| (i * 37 + i / 7) as u8);
            let signs: [u8; GROUP_ROWS] = std::array::from_fn(|i| (i * 91 + 5) as u8);
            let table = std::array::from_fn(|i| (i as i8 - 8) * 15);
            let (a, signs, table) = (s.load_rows(&bytes), s.load_rows(&signs), s.load_table(&table));
            let (low, high) = (s.low_nibbles(a), s.high_nibbles(a));
            let found = s.look_up(table, low);
            let all = [
                a,
                s.zero_rows(),
                low,
                high,
                found,
                s.look_up(table, high),
                s.add_rows(low, found),
                s.negate_rows(found, signs),
                s.negate_rows(low, s.double_rows(signs)),
            ];
            let wide = |rows| s.widen_add(s.widen_add(s.zero_wide(), found), rows);
            all.iter().map(|rows| s.combine(wide(*rows), wide(high), 23)).collect()
        }
    }

    #[test]
    fn operations_are_the_same_on_every_level() {
        let expected = Isa::Scalar.level().unwrap().run(Each);
        // Row 0 holds 0, so that it finds the entry -120: 23 * (-120 + 0) + (-120 + 0).
        assert_eq!(expected[1][0], 24 * -120);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
            assert_eq!(isa.level().unwrap().run(Each), expected, "{isa}");
        }
    }
}
