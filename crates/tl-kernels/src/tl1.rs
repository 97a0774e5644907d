//! TL1: two weights per nibble, 64 rows side by side.
//!
//! ```text
//! block of 64 rows x 256 columns, 4096 bytes of codes, then 64 f16 scales
//!   byte vector v = 0..64:   byte r = row r      low nibble = pair 2 v, high nibble = pair 2 v + 1
//! ```
//!
//! **Bounds.** An i8 holds 11 additions of one plane of a table of pairs (`lut.rs`); five byte vectors make ten. A plane's
//! sum over a block is at most 128 * 11 = 1408, and `23 * hi + lo` is the block's product, at most 256 * 127 = 32,512:
//! an i16 holds both.
//!
//! **Invariant:** the sums are exact. Source: TL1 of bitnet.cpp (arXiv 2410.16144); layout and split are ours.

use crate::arch::lut::GROUP_ROWS;
use crate::lut::{Grouping, Planes};
use crate::lut_matrix::{LutFormat, PREFETCH_BYTES};
use crate::vector::Simd;

/// Two weights per nibble.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tl1;

/// Byte vectors that are added up before the sums are widened.
const VECTORS: usize = 5;
const _: () = assert!(2 * VECTORS <= Grouping::Pairs.additions());

impl LutFormat for Tl1 {
    const GROUPING: Grouping = Grouping::Pairs;
    const VECTORS: usize = 64;

    fn encode(groups: &[(u8, bool)], mut write: impl FnMut(usize, u8)) {
        for (v, pair) in groups.as_chunks::<2>().0.iter().enumerate() {
            let [(low, _), (high, _)] = *pair;
            write(v, low | high << 4);
        }
    }

    #[inline(always)]
    fn sums<S: Simd>(s: S, vectors: &[[u8; GROUP_ROWS]], table: &[Planes]) -> [i16; GROUP_ROWS] {
        let (vectors, last_vectors) = vectors.as_chunks::<VECTORS>();
        let (tables, last_tables) = table.as_chunks::<{ 2 * VECTORS }>();
        let mut sums = [s.zero_wide(); 2];
        for (vectors, tables) in vectors.iter().zip(tables) {
            sums = add_vectors(s, sums, vectors, tables);
        }
        let [hi, lo] = add_vectors(s, sums, last_vectors, last_tables);
        s.combine(hi, lo, Self::GROUPING.split())
    }
}

/// Adds what at most [`VECTORS`] byte vectors find to the sums of both planes.
#[inline(always)]
fn add_vectors<S: Simd>(
    s: S,
    [hi_sums, lo_sums]: [S::Wide; 2],
    vectors: &[[u8; GROUP_ROWS]],
    tables: &[Planes],
) -> [S::Wide; 2] {
    let (mut hi, mut lo) = (s.zero_rows(), s.zero_rows());
    for (vector, [even, odd]) in vectors.iter().zip(tables.as_chunks::<2>().0) {
        s.prefetch(vector, PREFETCH_BYTES);
        let codes = s.load_rows(vector);
        for (index, [hi_table, lo_table]) in [(s.low_nibbles(codes), even), (s.high_nibbles(codes), odd)] {
            hi = s.add_rows(hi, s.look_up(s.load_table(hi_table), index));
            lo = s.add_rows(lo, s.look_up(s.load_table(lo_table), index));
        }
    }
    [s.widen_add(hi_sums, hi), s.widen_add(lo_sums, lo)]
}
