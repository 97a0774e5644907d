//! Tiles of 32 rows: the layout in which ternary weights meet many tokens, or are streamed from an arena.
//!
//! **Invariant:** rows behind the last one of a matrix have code 1 (the weight 0) and scale 0.
//!
//! ```text
//! TileBlock, 2112 bytes: 32 rows x 256 columns           one line per chunk c = 0..16, two cache lines each
//!   codes   | row 0: bytes 4c..4c+4 | row 1: bytes 4c..4c+4 | .. | row 31 |
//!           "bytes" are the 64 bytes of a TQ2_0 block, so field n of byte m is the weight at place 64 n + m of
//!           the field order of the activations (activations.rs): four activations of a field, broadcast, meet
//!           one dword of every row
//!   scales  | f16 of row 0 | .. | row 31 |
//! tile: its blocks in ascending order; matrix: its tiles
//! ```
//! No sum crosses a register, because lane r is row r. A tile is read from end to end.
//! Source: the dot layouts of KleidiAI and oneDNN for 8-bit weights; here four 2-bit fields share the byte.

use bytemuck::{AnyBitPattern, NoUninit};
use ternary_core::BLOCK;

use super::fma;

/// Rows of a tile.
pub(crate) const TILE: usize = 32;

/// Chunks of a block: four bytes of each row, so sixteen weights of each row.
pub(crate) const CHUNKS: usize = BLOCK / 16;

/// The weights of 32 rows and 256 columns.
#[derive(Debug, Clone, Copy, AnyBitPattern, NoUninit)]
#[repr(C, align(64))]
pub struct TileBlock {
    /// Chunk c: bytes `4 c .. 4 c + 4` of the TQ2_0 block of each row.
    pub(crate) codes: [[u8; 4 * TILE]; CHUNKS],
    /// The f16 scale of each row, little-endian.
    pub(crate) scales: [[u8; 2]; TILE],
}

impl TileBlock {
    /// A block in which all rows are padding.
    pub(crate) const PADDING: TileBlock = TileBlock { codes: [[0x55; 4 * TILE]; CHUNKS], scales: [[0; 2]; TILE] };
}

/// The part of a token that a block is multiplied with.
#[derive(Debug, Clone, Copy)]
pub struct TokenBlock<'a> {
    /// INT8 activations in field order.
    pub(crate) codes: &'a [i8; BLOCK],
    /// The sum of the activations.
    pub(crate) sum: i32,
    /// The scale of the activations.
    pub(crate) scale: f32,
}

/// The operations on tiles. The default bodies are the definition.
pub trait TileSimd: Copy {
    /// Tokens that share the unpacked codes of a block; their sums fit the registers.
    const TOKENS: TileTokens = TileTokens::Four;

    /// `acc[j][r] = fma(scale[r] * tokens[j].scale, (sum of codes[r] * tokens[j].codes - tokens[j].sum) as f32, acc[j][r])`
    #[inline(always)]
    fn tile_block<const T: usize>(self, block: &TileBlock, tokens: &[TokenBlock<'_>; T], acc: &mut [[f32; TILE]; T]) {
        portable_block(block, tokens, acc);
    }

    /// `codes[c]` = bytes `4 c .. 4 c + 4` of every row.
    #[inline(always)]
    fn transpose(self, rows: &[[u8; BLOCK / 4]; TILE], codes: &mut [[u8; 4 * TILE]; CHUNKS]) {
        for (r, row) in rows.iter().enumerate() {
            for (quad, chunk) in row.as_chunks::<4>().0.iter().zip(&mut *codes) {
                chunk.as_chunks_mut::<4>().0[r] = *quad;
            }
        }
    }
}

/// Most tokens of one call of [`TileSimd::tile_block`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TileTokens {
    /// For sixteen registers, or for sums of 16 bits, of which a row needs two.
    Four,
    /// For thirty-two registers and sums of 32 bits.
    Eight,
}

/// [`TileSimd::tile_block`] in plain Rust.
#[inline(always)]
pub(crate) fn portable_block<const T: usize>(
    block: &TileBlock,
    tokens: &[TokenBlock<'_>; T],
    acc: &mut [[f32; TILE]; T],
) {
    for (token, acc) in tokens.iter().zip(acc) {
        let mut sums = [-token.sum; TILE];
        for (c, chunk) in block.codes.iter().enumerate() {
            for field in 0..4 {
                let acts = &token.codes[64 * field + 4 * c..][..4];
                for (sum, quad) in sums.iter_mut().zip(chunk.as_chunks::<4>().0) {
                    for (byte, &a) in quad.iter().zip(acts) {
                        *sum += i32::from(byte >> (2 * field) & 3) * i32::from(a);
                    }
                }
            }
        }
        for ((acc, sum), scale) in acc.iter_mut().zip(sums).zip(block.scales) {
            let scale = half::f16::from_le_bytes(scale).to_f32();
            *acc = fma(scale * token.scale, sum as f32, *acc);
        }
    }
}
