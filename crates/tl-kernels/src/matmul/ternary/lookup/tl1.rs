//! TL1: two weights per nibble, 64 rows side by side.
//!
//! ```text
//! block of 64 rows x 256 columns, 4096 bytes of codes, then 64 f16 scales
//!   byte vector v = 0..64:   byte r = row r      low nibble = pair 2 v, high nibble = pair 2 v + 1
//! ```
//!
//! **Bounds.** An i8 holds the sum of 11 entries of one half of a table of pairs (`activations/lookup_table.rs`); five byte
//! vectors add ten. The sum of one half over a block is at most 128 * 11 = 1408, and `23 * hi + lo` is the product of the
//! block, at most 256 * 127 = 32,512: an i16 holds both.
//!
//! **Invariant:** the sums are exact. Source: TL1 of bitnet.cpp (arXiv 2410.16144); layout and split are ours.

use super::format::{LookupFormat, PREFETCH_BYTES, Wide};
use crate::activations::{GroupTable, Grouping};
use crate::simd::{GROUP_ROWS, Lookup, RowBytes, Simd};

/// The layout TL1: two weights per nibble.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tl1;

/// Byte vectors that are added up before the sums are widened.
const VECTORS: usize = 5;
const _: () = assert!(2 * VECTORS <= Grouping::Pairs.additions());

impl LookupFormat for Tl1 {
    const GROUPING: Grouping = Grouping::Pairs;
    const VECTORS: usize = 64;

    fn encode(groups: &[(u8, bool)], mut write: impl FnMut(usize, u8)) {
        for (v, pair) in groups.as_chunks::<2>().0.iter().enumerate() {
            let [(low, _), (high, _)] = *pair;
            write(v, low | high << 4);
        }
    }

    #[inline(always)]
    fn sums<S: Simd>(s: S, vectors: &[[u8; GROUP_ROWS]], table: &[GroupTable]) -> [i16; GROUP_ROWS] {
        let (vectors, last_vectors) = vectors.as_chunks::<VECTORS>();
        let (tables, last_tables) = table.as_chunks::<{ 2 * VECTORS }>();
        let l = s.lookup();
        let mut sums = [l.zero_wide(); 2];
        for (vectors, tables) in vectors.iter().zip(tables) {
            sums = add_vectors(s, sums, vectors, tables);
        }
        let [hi, lo] = add_vectors(s, sums, last_vectors, last_tables);
        l.combine(hi, lo, Self::GROUPING.split())
    }
}

/// Adds the entries that at most [`VECTORS`] byte vectors select to the sums of both halves.
#[inline(always)]
fn add_vectors<S: Simd>(
    s: S,
    [hi_sums, lo_sums]: [Wide<S>; 2],
    vectors: &[[u8; GROUP_ROWS]],
    tables: &[GroupTable],
) -> [Wide<S>; 2] {
    let l = s.lookup();
    let (mut hi, mut lo) = (l.zero_rows(), l.zero_rows());
    for (vector, [even, odd]) in vectors.iter().zip(tables.as_chunks::<2>().0) {
        s.prefetch(vector, PREFETCH_BYTES);
        let codes = l.load_rows(vector);
        for (index, [hi_table, lo_table]) in [(l.low_nibbles(codes), even), (l.high_nibbles(codes), odd)] {
            hi = l.add_rows(hi, l.look_up(l.load_table(hi_table), index));
            lo = l.add_rows(lo, l.look_up(l.load_table(lo_table), index));
        }
    }
    [l.widen_add(hi_sums, hi), l.widen_add(lo_sums, lo)]
}
