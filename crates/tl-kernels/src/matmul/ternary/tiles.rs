//! A ternary matrix packed as tiles (simd/tile.rs) in memory of its own, and its product.
//!
//! ```text
//! tile 0: block 0 | block 1 | .. | tile 1: ..      rows padded to 32
//! ```
//! A block takes 2112 bytes, 2.0625 bits per weight; or, of TQ1_0 (simd/trit_tile.rs), 1728 bytes, 1.6875: as in files.
//!
//! **Invariant:** the bytes are whole tiles of the matrix's shape and start on a cache line; checked once, when the
//! matrix is made. Any 2-bit codes are accepted: damaged ones give the numbers that the layout of the file gives.

use std::marker::PhantomData;

use bytemuck::{AnyBitPattern, NoUninit};
use ternary_core::{Bytes, Packing, Scales, TernaryTensor};

use super::rows::TernaryRows;
use super::tile_product::{TileTask, tile_product};
use super::token_tables::{TableProduct, TableScratch, Tiles};
use super::trit_tiles::trit_product;
use crate::activations::QuantizedRows;
use crate::arch::Level;
use crate::error::{Error, Result};
use crate::matmul::formats::{T158, TernaryFormat, Tq1, Tq2, block_scale};
use crate::memory::CACHE_LINE_BYTES;
use crate::pool::ColumnBlock;
use crate::simd::{Kernel, Simd, TILE, TileBlock, TritBlock, fill_row};

/// The name of the layout in the names of cache files. A change of the layout must change it: tiles of another layout
/// would be read as weights.
pub const LAYOUT_ID: &str = "tile32-2";

/// The rows of a matrix as tiles. Clones and slices share the bytes.
#[derive(Debug, Clone)]
pub(crate) struct TileMatrix {
    bytes: Bytes,
    blocks: Blocks,
    n_blocks: usize,
    /// Row 0 of this view, among all rows of the tiles.
    first_row: usize,
}

/// The kind of blocks in a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blocks {
    /// Two bits per weight: [`TileBlock`].
    Fields,
    /// Five weights in a byte: [`TritBlock`].
    Trits,
}

impl Blocks {
    /// The kind that keeps a matrix in this packing as small as in its file.
    fn of(packing: Packing) -> Blocks {
        match packing {
            Packing::Tq2_0 | Packing::BitnetT158 => Blocks::Fields,
            Packing::Tq1_0 => Blocks::Trits,
        }
    }

    /// Bytes of a block.
    fn bytes(self) -> usize {
        match self {
            Blocks::Fields => size_of::<TileBlock>(),
            Blocks::Trits => size_of::<TritBlock>(),
        }
    }
}

/// Bytes of a `[rows, cols]` matrix as tiles.
pub(crate) fn packed_bytes(tensor: &TernaryTensor) -> usize {
    // No overflow: rows are padded by less than a tile, and a row is as long as in the file.
    tensor.rows().div_ceil(TILE) * tensor.blocks_per_row() * Blocks::of(tensor.packing()).bytes()
}

impl TileMatrix {
    /// The matrix of `tensor` in `bytes`, which [`pack`] has written.
    ///
    /// # Errors
    /// [`Error::PackedBytes`] for bytes of another length or at an odd address.
    pub(crate) fn new(tensor: &TernaryTensor, bytes: Bytes) -> Result<TileMatrix> {
        let expected = packed_bytes(tensor);
        // Whole blocks of either kind are whole cache lines.
        let fits = bytes.len() == expected && bytes.as_ptr().align_offset(CACHE_LINE_BYTES) == 0;
        if !fits {
            return Err(Error::PackedBytes { expected, got: bytes.len() });
        }
        let blocks = Blocks::of(tensor.packing());
        Ok(TileMatrix { bytes, blocks, n_blocks: tensor.blocks_per_row(), first_row: 0 })
    }

    /// The rows `start..end`: the tiles that hold them, shared.
    pub(crate) fn slice(&self, start: usize, end: usize) -> TileMatrix {
        let (start, end) = (self.first_row + start, self.first_row + end);
        let tile_bytes = self.n_blocks * self.blocks.bytes();
        let bytes = self.bytes.slice(start / TILE * tile_bytes..end.div_ceil(TILE) * tile_bytes);
        TileMatrix { bytes, first_row: start % TILE, ..*self }
    }

    /// Blocks of scratch for the product with `n` tokens.
    pub(crate) fn scratch_blocks(&self, n: usize) -> usize {
        match self.blocks {
            Blocks::Trits if n > 1 => self.n_blocks,
            Blocks::Trits | Blocks::Fields => 0,
        }
    }

    /// Bytes of the tiles.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// Writes `tensor` as tiles to `out`.
///
/// # Panics
/// If `out` is not [`packed_bytes`] long or does not start on a cache line.
pub(crate) fn pack(level: Level, tensor: &TernaryTensor, out: &mut [u8]) {
    match tensor.packing() {
        Packing::Tq2_0 => {
            level.run(Packer { rows: TernaryRows { tensor, packing: PhantomData::<Tq2> }, blocks: cast_mut(out) });
        }
        Packing::BitnetT158 => {
            level.run(Packer { rows: TernaryRows { tensor, packing: PhantomData::<T158> }, blocks: cast_mut(out) });
        }
        Packing::Tq1_0 => pack_trits(tensor, cast_mut(out)),
    }
}

/// The bytes of an arena as blocks.
fn cast_mut<B: AnyBitPattern + NoUninit>(bytes: &mut [u8]) -> &mut [B] {
    bytemuck::try_cast_slice_mut(bytes).expect("an arena is aligned and its parts are whole tiles")
}

/// Transposes the bytes of TQ1_0 blocks.
fn pack_trits(tensor: &TernaryTensor, blocks: &mut [TritBlock]) {
    for (i, tile) in blocks.chunks_exact_mut(tensor.blocks_per_row()).enumerate() {
        let start = i * TILE;
        let len = TILE.min(tensor.rows() - start);
        if len < TILE {
            tile.fill(TritBlock::PADDING);
        }
        for r in 0..len {
            for (block, out) in Tq1::blocks(tensor.row_bytes(start + r)).iter().zip(&mut *tile) {
                let codes = block.first_chunk().expect("a block is longer than its codes");
                fill_row(out, r, codes, block_scale::<Tq1>(tensor.scales(), block));
            }
        }
    }
}

/// The layout of some rows.
struct Packer<'a, P> {
    rows: TernaryRows<'a, P>,
    blocks: &'a mut [TileBlock],
}

impl<P: TernaryFormat> Kernel for Packer<'_, P> {
    type Output = ();
    const INTEGER: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let tensor = self.rows.tensor;
        for (i, tile) in self.blocks.chunks_exact_mut(tensor.blocks_per_row()).enumerate() {
            let start = i * TILE;
            self.rows.fill_tile(s, start, TILE.min(tensor.rows() - start), tile);
        }
    }
}

/// The product of some rows of a packed matrix with all tokens.
pub(crate) struct TileProduct<'a, 'b> {
    /// The matrix as tiles.
    pub(crate) matrix: &'a TileMatrix,
    /// The place of its scales: in the blocks, or one for the tensor.
    pub(crate) scales: Scales,
    /// The tokens of the product.
    pub(crate) acts: &'a QuantizedRows,
    /// The rows to compute, as columns of `y`.
    pub(crate) out: ColumnBlock<'b, f32>,
    /// As many blocks as [`TileMatrix::scratch_blocks`] says.
    pub(crate) scratch: &'a mut [TileBlock],
    /// Room for tables of tokens.
    pub(crate) tables: &'a mut TableScratch,
    /// Fewest rows for which token tables are made.
    pub(crate) tables_from_rows: usize,
}

impl Kernel for TileProduct<'_, '_> {
    type Output = ();
    const INTEGER: bool = true;

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let columns = self.out.columns();
        let tensor_scale = match self.scales {
            Scales::PerBlock => None,
            Scales::PerTensor(scale) => Some(scale),
        };
        let (bytes, n_blocks) = (&self.matrix.bytes, self.matrix.n_blocks);
        let first_token = self.by_tables(s, tensor_scale);
        if first_token == self.out.n_rows() {
            return;
        }
        let mut column = columns.start;
        while column < columns.end {
            let row = self.matrix.first_row + column;
            let (tile, first) = (row / TILE, row % TILE);
            let len = (TILE - first).min(columns.end - column);
            let task = TileTask { tensor_scale, acts: self.acts, first, len, column, first_token, fetch: true };
            let tile_bytes = n_blocks * self.matrix.blocks.bytes();
            let tile = &bytes[tile * tile_bytes..][..tile_bytes];
            match self.matrix.blocks {
                Blocks::Fields => tile_product(s, bytemuck::cast_slice(tile), task, &mut self.out),
                Blocks::Trits => trit_product(s, bytemuck::cast_slice(tile), task, &mut self.out, self.scratch),
            }
            column += len;
        }
    }
}

impl TileProduct<'_, '_> {
    /// Multiplies the tokens that fill tables and returns their number.
    #[inline(always)]
    fn by_tables<S: Simd>(&mut self, s: S, tensor_scale: Option<f32>) -> usize {
        let TileMatrix { bytes, blocks, n_blocks, first_row } = self.matrix;
        let (start, end) = (first_row + self.out.columns().start, first_row + self.out.columns().end);
        let tile_bytes = n_blocks * blocks.bytes();
        let tiles = &bytes[start / TILE * tile_bytes..end.div_ceil(TILE) * tile_bytes];
        let tiles = match blocks {
            Blocks::Fields => Tiles::Fields(bytemuck::cast_slice(tiles)),
            Blocks::Trits => Tiles::Trits(bytemuck::cast_slice(tiles)),
        };
        let (n_blocks, first, from_rows) = (*n_blocks, start % TILE, self.tables_from_rows);
        let product = TableProduct { tiles, n_blocks, first, tensor_scale, acts: self.acts, from_rows };
        product.run(s, &mut self.out, self.tables)
    }
}
