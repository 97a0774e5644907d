//! The operations of look-ups.

use crate::arch::Isa;
use crate::simd::{GROUP_ROWS, Kernel, Lookup, RowBytes, Simd};

/// One of each operation, on bytes that tell rows and bits apart.
struct Each;

impl Kernel for Each {
    type Output = Vec<[i16; GROUP_ROWS]>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let s = s.lookup();
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
