//! A ternary matrix packed as tiles (tile.rs) in memory of its own, and its product.
//!
//! ```text
//! tile 0: block 0 | block 1 | .. | tile 1: ..      2112 bytes each: 2.0625 bits per weight, rows padded to 32
//! ```
//!
//! **Invariant:** the bytes are whole tiles of the matrix's shape and start on a cache line; checked once, when the
//! matrix is made. Any 2-bit codes are accepted: damaged ones give the numbers that the layout of the file gives.

use std::marker::PhantomData;

use ternary_core::{Bytes, Packing, Scales, TernaryTensor};

use crate::activation::QuantizedRows;
use crate::arch::Level;
use crate::arena::Arena;
use crate::bitlinear::BitLinear;
use crate::error::{Error, Result};
use crate::linear::Linear;
use crate::pool::{ColumnBlock, Pool};
use crate::ternary::{T158, TernaryFormat, TernaryRows, Tq1, Tq2};
use crate::tile::{TILE, TileBlock, TileSpan, tile_product};
use crate::vector::{Kernel, Simd};

/// Names the layout in caches; a change of the layout changes it.
pub const LAYOUT_ID: &str = "tile32-tq2-1";

/// The rows of a matrix as tiles. Clones and slices share the bytes.
#[derive(Debug, Clone)]
pub(crate) struct TileMatrix {
    bytes: Bytes,
    n_blocks: usize,
    /// Row 0 of this view, among all rows of the tiles.
    first_row: usize,
}

/// Bytes of a `[rows, cols]` matrix as tiles.
pub(crate) fn packed_bytes(tensor: &TernaryTensor) -> usize {
    // No overflow: rows are padded by less than a tile, and a block is stored in at least 52 of its 66 bytes already.
    tensor.rows().div_ceil(TILE) * tensor.blocks_per_row() * size_of::<TileBlock>()
}

impl TileMatrix {
    /// The matrix of `tensor` in `bytes`, which [`pack`] has written.
    ///
    /// # Errors
    /// [`Error::PackedBytes`] for bytes of another length or at an odd address.
    pub(crate) fn new(tensor: &TernaryTensor, bytes: Bytes) -> Result<TileMatrix> {
        let expected = packed_bytes(tensor);
        let sound = bytes.len() == expected && bytemuck::try_cast_slice::<u8, TileBlock>(&bytes).is_ok();
        if !sound {
            return Err(Error::PackedBytes { expected, got: bytes.len() });
        }
        Ok(TileMatrix { bytes, n_blocks: tensor.blocks_per_row(), first_row: 0 })
    }

    /// The rows `start..end`: the tiles that hold them, shared.
    pub(crate) fn slice(&self, start: usize, end: usize) -> TileMatrix {
        let (start, end) = (self.first_row + start, self.first_row + end);
        let tile_bytes = self.n_blocks * size_of::<TileBlock>();
        let bytes = self.bytes.slice(start / TILE * tile_bytes..end.div_ceil(TILE) * tile_bytes);
        TileMatrix { bytes, first_row: start % TILE, ..*self }
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
    let blocks = bytemuck::try_cast_slice_mut(out).expect("an arena is aligned and its parts are whole tiles");
    match tensor.packing() {
        Packing::Tq2_0 => level.run(Packer { rows: TernaryRows { tensor, packing: PhantomData::<Tq2> }, blocks }),
        Packing::Tq1_0 => level.run(Packer { rows: TernaryRows { tensor, packing: PhantomData::<Tq1> }, blocks }),
        Packing::BitnetT158 => level.run(Packer { rows: TernaryRows { tensor, packing: PhantomData::<T158> }, blocks }),
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
    /// The matrix.
    pub(crate) matrix: &'a TileMatrix,
    /// Where its scales are.
    pub(crate) scales: Scales,
    /// The tokens.
    pub(crate) acts: &'a QuantizedRows,
    /// The rows to compute, as columns of `y`.
    pub(crate) out: ColumnBlock<'b, f32>,
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
        let blocks: &[TileBlock] = bytemuck::cast_slice(&self.matrix.bytes);
        let mut column = columns.start;
        while column < columns.end {
            let row = self.matrix.first_row + column;
            let (tile, first) = (row / TILE, row % TILE);
            let len = (TILE - first).min(columns.end - column);
            let tile = &blocks[tile * self.matrix.n_blocks..][..self.matrix.n_blocks];
            tile_product(s, tile, tensor_scale, self.acts, &TileSpan { first, len, column }, &mut self.out);
            column += len;
        }
    }
}

/// Packs the ternary matrices among `layers` into one arena and returns its bytes, 0 where there was nothing to pack.
/// Matrices for F32 activations and those in a layout of their own are left as they are. The pages of the file that the
/// matrices came from are read once and not needed again for products: the caller may give them back.
///
/// # Errors
/// [`Error::ArenaMemory`]; then no layer has changed.
pub fn pack_layers(layers: &mut [&mut Linear], pool: &Pool) -> Result<usize> {
    let matrices: Vec<&BitLinear> = layers.iter().filter_map(|layer| packable(layer)).collect();
    let total = matrices.iter().map(|w| packed_bytes(w.tensor())).sum();
    if total == 0 {
        return Ok(0);
    }
    let mut arena = Arena::new(total)?;
    let mut rest = arena.as_mut_slice();
    let mut work = Vec::with_capacity(matrices.len());
    for matrix in matrices {
        let (part, behind) = rest.split_at_mut(packed_bytes(matrix.tensor()));
        work.push((matrix, part));
        rest = behind;
    }
    pool.chunks_mut(&mut work, 1, |_, work| {
        for (matrix, part) in work {
            matrix.pack_into(part);
        }
    });
    drop(work);
    let bytes = arena.freeze();
    let mut start = 0;
    for layer in layers {
        let Some(matrix) = packable(layer) else { continue };
        let end = start + packed_bytes(matrix.tensor());
        **layer = Linear::Ternary(matrix.clone().with_packed(bytes.slice(start..end))?);
        start = end;
    }
    Ok(total)
}

/// The matrix in a layer that packing would help.
fn packable(layer: &Linear) -> Option<&BitLinear> {
    match layer {
        Linear::Ternary(w) if w.is_packable() => Some(w),
        _ => None,
    }
}
