//! The operations of products by token tables. `matmul/ternary/token_tables.rs` describes the algorithm.
//!
//! **Invariant:** a sum over a block is exact in 16 bits: 256 weights -1..=1 times activations of at most 127 stay
//! within 32,512, and so does each part of it. Damaged codes (3) have no entry; every level
//! notices them.

use std::iter::StepBy;
use std::slice::Iter;

use ternary_core::BLOCK;

use super::{CHUNKS, TILE, TileBlock, TileSimd};

/// Combinations of four weights.
pub(crate) const COMBINATIONS: usize = 81;

/// Size in 16-bit numbers of all live tables plus 256 padding entries, so that any byte is a valid index: at most seven
/// tables for 16 tokens, or three for 32, are live before the last one.
pub(crate) const TABLE_LEN: usize = 1 << 14;

/// The operations on token tables. The default bodies are the definition.
pub trait TableSimd: TileSimd {
    /// Tokens that share a table, 16 or 32; 0 where the products of tiles are faster, or the two were not compared.
    const TABLE_TOKENS: usize = 0;

    /// `sums[i][r][t]` = the sum of `(code - 1) * tokens[t]` over row r of tile i of `column`, for T = 16 or 32 tokens.
    /// Returns whether all codes were valid; if not, the sums are unspecified. `tables` is room for 2^14 numbers.
    #[inline(always)]
    fn table_sums<const T: usize>(
        self,
        tokens: &[&[i8; BLOCK]; T],
        column: BlockColumn<'_>,
        tables: &mut [[i16; T]],
        sums: &mut [[[i16; T]; TILE]],
    ) -> bool {
        portable_sums(tokens, column, tables, sums)
    }

    /// Transposes: `out[t][r] = acc[r][t]`.
    #[inline(always)]
    fn by_token<const T: usize>(self, acc: &[[f32; T]; TILE], out: &mut [[f32; TILE]; T]) {
        for (t, out) in out.iter_mut().enumerate() {
            for (out, acc) in out.iter_mut().zip(acc) {
                *out = acc[t];
            }
        }
    }
}

/// One block of each of some tiles.
#[derive(Debug, Clone, Copy)]
pub struct BlockColumn<'a> {
    /// All blocks from that of the first tile on.
    pub(crate) blocks: &'a [TileBlock],
    /// Blocks from one tile to the next.
    pub(crate) stride: usize,
}

impl<'a> BlockColumn<'a> {
    /// The block of each tile, in order.
    #[inline(always)]
    pub(crate) fn blocks(self) -> StepBy<Iter<'a, TileBlock>> {
        self.blocks.iter().step_by(self.stride)
    }
}

/// [`TableSimd::table_sums`] in plain Rust, with the tables of a chunk at a time.
#[inline(always)]
pub(crate) fn portable_sums<const T: usize>(
    tokens: &[&[i8; BLOCK]; T],
    column: BlockColumn<'_>,
    tables: &mut [[i16; T]],
    sums: &mut [[[i16; T]; TILE]],
) -> bool {
    let mut damage = 0;
    sums.as_flattened_mut().fill([0; T]);
    for c in 0..CHUNKS {
        for byte in 0..4 {
            let mut fields = [[0; T]; 4];
            for (f, field) in fields.iter_mut().enumerate() {
                for (lane, codes) in field.iter_mut().zip(tokens) {
                    *lane = i16::from(codes[64 * f + 4 * c + byte]);
                }
            }
            fill_table(&fields, &mut tables[COMBINATIONS * byte..][..COMBINATIONS]);
        }
        for (block, sums) in column.blocks().zip(&mut *sums) {
            for (sum, bytes) in sums.iter_mut().zip(block.codes[c].as_chunks::<4>().0) {
                for (k, byte) in bytes.iter().enumerate() {
                    damage |= byte & byte >> 1 & 0x55;
                    let entry = &tables[COMBINATIONS * k + combination(*byte)];
                    for (sum, entry) in sum.iter_mut().zip(entry) {
                        *sum = sum.wrapping_add(*entry);
                    }
                }
            }
        }
    }
    damage == 0
}

/// The number to base 3 with the digits that `byte` has to base 4; at most 120 where some are 3.
#[inline(always)]
fn combination(byte: u8) -> usize {
    // Two digits of base 4 become two of base 3 in each half byte, then two half bytes two digits of base 9.
    let nines = byte - (byte >> 2 & 0x33);
    usize::from(nines - 7 * (nines >> 4))
}

/// Entry `c_0 + 3 c_1 + 9 c_2 + 27 c_3` becomes the sum of `(c_f - 1) * fields[f]`.
#[inline(always)]
fn fill_table<const T: usize>(fields: &[[i16; T]; 4], table: &mut [[i16; T]]) {
    for t in 0..T {
        table[0][t] = -fields.iter().map(|field| field[t]).sum::<i16>();
    }
    let mut known = 1;
    for field in fields {
        for i in known..3 * known {
            for t in 0..T {
                table[i][t] = table[i - known][t] + field[t];
            }
        }
        known *= 3;
    }
}
