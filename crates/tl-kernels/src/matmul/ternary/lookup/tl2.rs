//! TL2: three weights per nibble and sign, 64 rows side by side.
//!
//! ```text
//! block of 64 rows x 256 columns = 86 groups: 84 triples and 2 pairs; 3456 bytes of codes, then 64 f16 scales
//!   bundle k = 0..11:  vector of signs, then 4 vectors of nibbles (3 in the last bundle); byte r = row r
//!     nibbles  vector i: low nibble = group 8 k + 2 i, high nibble = group 8 k + 2 i + 1
//!     signs    bit 7 - j is set where group 8 k + j is the negative of its entry
//! ```
//!
//! **Bounds.** An i8 holds the sum of 9 entries of one half of a table of triples (`activations/lookup_table.rs`); a bundle
//! adds eight. The sum of one half over a block is at most 86 * 14 = 1204, and `27 * hi + lo` at most 32,512: an i16 holds both.
//!
//! **Invariant:** the sums are exact. Source: TL2 of bitnet.cpp (arXiv 2410.16144); layout and split are ours.

use super::format::{LookupFormat, PREFETCH_BYTES, Wide};
use crate::activations::{GroupTable, Grouping};
use crate::simd::{GROUP_ROWS, Lookup, RowBytes, Simd};

/// The layout TL2: three weights per nibble and sign.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tl2;

/// Groups that share a vector of signs, and are added up before the sums are widened.
const BUNDLE: usize = 8;
/// Byte vectors of a whole bundle.
const VECTORS: usize = 1 + BUNDLE / 2;
const _: () = assert!(BUNDLE <= Grouping::Triples.additions());

impl LookupFormat for Tl2 {
    const GROUPING: Grouping = Grouping::Triples;
    const VECTORS: usize = Grouping::Triples.groups() / 2 + Grouping::Triples.groups().div_ceil(BUNDLE);

    fn encode(groups: &[(u8, bool)], mut write: impl FnMut(usize, u8)) {
        for (bundle, groups) in groups.chunks(BUNDLE).enumerate() {
            let signs = groups.iter().enumerate().map(|(j, (_, negative))| u8::from(*negative) << (7 - j));
            write(VECTORS * bundle, signs.sum());
            for (i, pair) in groups.as_chunks::<2>().0.iter().enumerate() {
                let [(low, _), (high, _)] = *pair;
                write(VECTORS * bundle + 1 + i, low | high << 4);
            }
        }
    }

    #[inline(always)]
    fn sums<S: Simd>(s: S, vectors: &[[u8; GROUP_ROWS]], table: &[GroupTable]) -> [i16; GROUP_ROWS] {
        let (bundles, last_bundle) = vectors.as_chunks::<VECTORS>();
        let (tables, last_tables) = table.as_chunks::<BUNDLE>();
        let l = s.lookup();
        let mut sums = [l.zero_wide(); 2];
        for (bundle, tables) in bundles.iter().zip(tables) {
            sums = add_bundle(s, sums, bundle, tables);
        }
        let [hi, lo] = add_bundle(s, sums, last_bundle, last_tables);
        l.combine(hi, lo, Self::GROUPING.split())
    }
}

/// Adds the entries that a bundle selects to the sums of both halves.
#[inline(always)]
fn add_bundle<S: Simd>(
    s: S,
    [hi_sums, lo_sums]: [Wide<S>; 2],
    bundle: &[[u8; GROUP_ROWS]],
    tables: &[GroupTable],
) -> [Wide<S>; 2] {
    let Some((signs, vectors)) = bundle.split_first() else {
        return [hi_sums, lo_sums];
    };
    let l = s.lookup();
    let mut signs = l.load_rows(signs);
    let (mut hi, mut lo) = (l.zero_rows(), l.zero_rows());
    for (vector, [even, odd]) in vectors.iter().zip(tables.as_chunks::<2>().0) {
        s.prefetch(vector, PREFETCH_BYTES);
        let codes = l.load_rows(vector);
        for (index, [hi_table, lo_table]) in [(l.low_nibbles(codes), even), (l.high_nibbles(codes), odd)] {
            hi = l.add_rows(hi, l.negate_rows(l.look_up(l.load_table(hi_table), index), signs));
            lo = l.add_rows(lo, l.negate_rows(l.look_up(l.load_table(lo_table), index), signs));
            signs = l.double_rows(signs);
        }
    }
    [l.widen_add(hi_sums, hi), l.widen_add(lo_sums, lo)]
}
