//! The trait of layouts for look-ups.

use crate::activations::{GroupTable, Grouping};
use crate::simd::{GROUP_ROWS, Lookup, Simd};

/// Bytes by which weights are fetched ahead of their use: about a block. The hardware prefetcher stops at the border of
/// each page.
pub(crate) const PREFETCH_BYTES: usize = 4096;

/// One i16 per row, in the look-ups of an instruction set.
pub(crate) type Wide<S> = <<S as Simd>::Lookup as Lookup>::Wide;

/// A lookup layout at compile time.
pub(crate) trait LookupFormat: Copy + Sync {
    /// The grouping of its tables.
    const GROUPING: Grouping;
    /// Byte vectors of a block of 64 rows.
    const VECTORS: usize;
    /// Calls `write(v, byte)` with this row's byte of each vector; `groups` has the index and sign of each group.
    fn encode(groups: &[(u8, bool)], write: impl FnMut(usize, u8));
    /// The products of a block of 64 rows with the activations behind `table`.
    fn sums<S: Simd>(s: S, vectors: &[[u8; GROUP_ROWS]], table: &[GroupTable]) -> [i16; GROUP_ROWS];
}
