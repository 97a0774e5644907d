//! The trait of weight types that are integers in blocks and can be multiplied with INT8 activations.

use ternary_core::BLOCK;

use super::dense::DenseFormat;
use crate::simd::{LANES, QUAD_ROWS, Simd};

/// Weights that are put into a panel at a time.
pub(crate) const RUN: usize = 32;

/// A type of integer weights in blocks, at compile time. Sealed: code outside of this crate cannot name it.
pub trait IntegerFormat: DenseFormat {
    /// The bytes of a block.
    type Block: Copy;
    /// Codes of the activations a block meets.
    type Acts;
    /// Weights that share a scale within a block.
    const GROUP: usize;
    /// Fewest tokens for which rows are put into a panel, where the level transposes it by vector instructions: then the
    /// panel is cheaper than unpacking the rows for each token.
    const PANEL_FROM_TOKENS: usize;

    /// The blocks of a row.
    fn blocks(row: &[u8]) -> &[Self::Block];
    /// The activations that block `b` of a row meets, in the order that [`IntegerFormat::dots`] takes.
    fn acts(codes: &[[i8; BLOCK]], b: usize) -> &Self::Acts;
    /// The bits of the block's f16 scale.
    fn scale_bits(block: &Self::Block) -> u16;
    /// `int_b` of a block of each of four rows, still spread over several partial sums.
    fn dots<S: Simd>(s: S, blocks: [&Self::Block; QUAD_ROWS], acts: &Self::Acts) -> [S::Sums; QUAD_ROWS];
    /// Writes the integers of a block in natural order to row `r` of its runs of 32.
    fn unpack<S: Simd>(s: S, block: &Self::Block, r: usize, runs: &mut [[[i8; RUN]; LANES]]);
    /// The scales of a block's sixteen groups, the second half of 32 bytes; `None` where all are 1.
    fn group_scales(block: &Self::Block) -> Option<&[u8; RUN]>;
}
