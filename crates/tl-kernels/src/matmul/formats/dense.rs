//! The trait of dense weight types: how sixteen neighbouring weights of a row become f32.
//!
//! **Invariant:** each weight is converted with at most one rounding (the product of a block's scale with
//! an integer), so `load` on every level equals the scalar dequantisation of the format.
//!
//! Source: the GGML block definitions.

use std::fmt;

use crate::error::{Error, Result};
use crate::simd::LANES;

/// A dense weight type, at compile time. Sealed: the implementors are the types of this crate.
pub trait DenseFormat: sealed::Load + fmt::Debug + Copy + Send + Sync + 'static {
    /// The GGML name of the type.
    const NAME: &'static str;
    /// Number of weights in a block.
    const BLOCK_LEN: usize;
    /// Number of bytes in a block.
    const BLOCK_BYTES: usize;
}

/// Keeps [`DenseFormat`] closed and its vector code out of the public interface.
pub(crate) mod sealed {
    use super::LANES;
    use crate::simd::Simd;

    /// Access to the weights of a row of packed bytes.
    pub trait Load {
        /// One block, or one group of sixteen where the block is a single weight.
        type Unit: Copy;
        /// A unit on its way to f32: the work that its groups share is done.
        type Prepared<'a, S: Simd>: Copy;
        /// Groups of sixteen weights per unit.
        const GROUPS: usize;

        /// The whole units of a row.
        fn units(row: &[u8]) -> &[Self::Unit];

        /// Room for a unit to be prepared in.
        fn blank<'a, S: Simd>(s: S) -> Self::Prepared<'a, S>;

        /// Does the work that the groups of each unit share.
        fn prepare<'a, S: Simd, const R: usize>(s: S, units: [&'a Self::Unit; R], out: &mut [Self::Prepared<'a, S>; R]);

        /// Group `g` of a unit.
        fn group<S: Simd>(s: S, unit: &Self::Prepared<'_, S>, g: usize) -> S::F;

        /// The weights behind the last whole unit, fewer than sixteen, then zeros.
        fn tail(row: &[u8]) -> [f32; LANES];
    }
}

/// Bytes of a row of `cols` weights of the type `ty`, whose blocks have `block` weights in `block_bytes` bytes.
pub(crate) fn row_bytes(ty: &'static str, block: usize, block_bytes: usize, cols: usize) -> Result<usize> {
    if !cols.is_multiple_of(block) {
        return Err(Error::BlockMultiple { ty, cols, block });
    }
    let bytes = (cols / block).checked_mul(block_bytes);
    bytes.ok_or(Error::ShapeOverflow { ty, rows: 1, cols })
}

/// The weights behind the whole groups of `row`, by `value` of each weight's bytes, padded with zeros.
#[inline(always)]
pub(super) fn tail_of<const BYTES: usize>(row: &[u8], value: impl Fn([u8; BYTES]) -> f32) -> [f32; LANES] {
    let (words, _) = row.as_chunks::<BYTES>();
    let mut tail = [0.0; LANES];
    for (out, &word) in tail.iter_mut().zip(&words[words.len() - words.len() % LANES..]) {
        *out = value(word);
    }
    tail
}
