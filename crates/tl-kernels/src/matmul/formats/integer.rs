//! The trait of weight types that are integers in blocks and can be multiplied with INT8 activations.

use ternary_core::BLOCK;

use super::dense::DenseFormat;
use crate::simd::{LANES, QUAD_ROWS, Simd};

/// A type of integer weights in blocks, at compile time. Sealed: code outside of this crate cannot name it.
pub trait IntegerFormat: DenseFormat {
    /// The bytes of a block.
    type Block: Copy;
    /// Codes of the activations a block meets.
    type Acts;
    /// Weights that share a scale within a block.
    const GROUP: usize;

    /// The blocks of a row.
    fn blocks(row: &[u8]) -> &[Self::Block];
    /// The activations that block `b` of a row meets, in the order that [`IntegerFormat::dots`] takes.
    fn acts(codes: &[[i8; BLOCK]], b: usize) -> &Self::Acts;
    /// The bits of the block's f16 scale.
    fn scale_bits(block: &Self::Block) -> u16;
    /// `int_b` of a block of each of four rows, still spread over several partial sums.
    fn dots<S: Simd>(s: S, blocks: [&Self::Block; QUAD_ROWS], acts: &Self::Acts) -> [S::Sums; QUAD_ROWS];
    /// The integers of a block in natural order, and writes the scale of each group.
    fn unpack<S: Simd>(s: S, block: &Self::Block, codes: &mut [[i8; LANES]], scales: &mut [i32]);
}
