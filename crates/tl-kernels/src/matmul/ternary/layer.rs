//! A ternary linear layer: packed ternary weights and the precision of the activations they meet.
//!
//! **Invariant:** equal to `ternary_core::oracle` in its mode, bit for bit, on every level.

use std::marker::PhantomData;

use ternary_core::{ActMode, BLOCK, Bytes, Packing, TernaryTensor};

use super::file_rows::{TernaryFloatProduct, TernaryProduct, tile_scratch};
use super::lookup::{LookupFormat, LookupMatrix, LookupProduct, Tl1, Tl2};
use super::rows::TernaryRows;
use super::tile_product::with_scratch;
use super::tiles::{TileMatrix, TileProduct, pack, packed_bytes};
use super::token_tables::{TABLE_ROWS, TableTokens, rows_per_piece, with_tables};
use crate::activations::{ActivationBuffer, Grouping, QuantizedRows, TableGuard};
use crate::arch::{Isa, Level};
use crate::error::{Error, Result};
use crate::matmul::dense::with_panel;
use crate::matmul::formats::{T158, TernaryFormat, Tq1, Tq2};
use crate::matmul::kind::KernelKind;
use crate::memory::Arena;
use crate::pool::ColumnBlock;

/// A matrix of ternary weights, read in the layout of its file or in one made at load.
#[derive(Debug, Clone)]
pub struct BitLinear {
    tensor: TernaryTensor,
    /// Input features; the weights of the tensor's last block that lie beyond are zero.
    cols: usize,
    mode: ActMode,
    level: Level,
    layout: Layout,
}

/// The layout that products read.
#[derive(Debug, Clone)]
enum Layout {
    /// The tensor, as its file stores it.
    File,
    /// A second copy of the weights: indices of look-up tables.
    Lookup(LookupMatrix),
    /// A second copy of the weights: tiles in an arena.
    Tiles(TileMatrix),
}

impl BitLinear {
    /// A layer over `tensor` for activations in `mode`. Codes and scales are not read here: run
    /// [`TernaryTensor::validate`] where damaged weights must be refused.
    ///
    /// # Errors
    /// [`Error::EmptyMatrix`].
    pub fn new(tensor: TernaryTensor, mode: ActMode) -> Result<BitLinear> {
        let (rows, cols) = (tensor.rows(), tensor.cols());
        if rows == 0 || cols == 0 {
            return Err(Error::EmptyMatrix { rows, cols });
        }
        Ok(BitLinear { tensor, cols, mode, level: Isa::current().level()?, layout: Layout::File })
    }

    /// The same layer for `cols` input features, which end in the last block of the tensor. All weights beyond them must be
    /// zero.
    ///
    /// # Errors
    /// [`Error::PaddedColumns`] when they end elsewhere, or the activations are not INT8: only codes are padded to whole
    /// blocks.
    pub fn with_cols(self, cols: usize) -> Result<BitLinear> {
        let blocks = cols.div_ceil(BLOCK);
        if self.mode == ActMode::F32 || blocks != self.tensor.blocks_per_row() {
            return Err(Error::PaddedColumns { cols, padded: self.tensor.cols(), mode: self.mode });
        }
        Ok(BitLinear { cols, ..self })
    }

    /// The weights as they were loaded. Products of packed layers do not read them.
    #[must_use]
    pub fn tensor(&self) -> &TernaryTensor {
        &self.tensor
    }

    /// Number of output features.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.tensor.rows()
    }

    /// Number of input features.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The weights that products read.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        match &self.layout {
            Layout::Tiles(matrix) => matrix.bytes(),
            Layout::File | Layout::Lookup(_) => self.tensor.bytes(),
        }
    }

    /// The precision of the activations.
    #[must_use]
    pub fn act_mode(&self) -> ActMode {
        self.mode
    }

    /// The level its kernels run on.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.level.isa()
    }

    /// The same layer on another level.
    ///
    /// # Errors
    /// [`Error::UnsupportedIsa`].
    pub fn with_isa(mut self, isa: Isa) -> Result<BitLinear> {
        self.level = isa.level()?;
        Ok(self)
    }

    /// The algorithm of its products.
    #[must_use]
    pub fn kernel(&self) -> KernelKind {
        match &self.layout {
            Layout::File => KernelKind::I2s,
            Layout::Tiles(_) => KernelKind::Tiles,
            Layout::Lookup(matrix) => match matrix.grouping() {
                Grouping::Pairs => KernelKind::Tl1,
                Grouping::Triples => KernelKind::Tl2,
            },
        }
    }

    /// The same layer with another kernel; all but I2_S read all weights and lay them out anew.
    ///
    /// # Errors
    /// [`Error::NoKernel`] where the kernel does not multiply such weights with such activations, and the first
    /// damaged block.
    pub fn with_kernel(self, kernel: KernelKind) -> Result<BitLinear> {
        let grouping = match kernel {
            KernelKind::I2s => return Ok(BitLinear { layout: Layout::File, ..self }),
            KernelKind::Tiles if kernel.takes(self.mode) => {
                let mut arena = Arena::new(packed_bytes(&self.tensor))?;
                self.pack_into(arena.as_mut_slice());
                return self.with_packed(arena.freeze());
            }
            KernelKind::Tl1 if kernel.takes(self.mode) => Grouping::Pairs,
            KernelKind::Tl2 if kernel.takes(self.mode) => Grouping::Triples,
            _ => return Err(Error::NoKernel { kernel, ty: self.tensor.packing().name(), mode: self.mode }),
        };
        Ok(BitLinear { layout: Layout::Lookup(LookupMatrix::new(&self.tensor, grouping)?), ..self })
    }

    /// Bytes that the weights take as tiles of an arena.
    #[must_use]
    pub fn packed_bytes(&self) -> usize {
        packed_bytes(&self.tensor)
    }

    /// Whether the layer reads the layout of its file and could read tiles instead.
    #[must_use]
    pub fn is_packable(&self) -> bool {
        self.kernel() == KernelKind::I2s && KernelKind::Tiles.takes(self.mode)
    }

    /// Writes the weights as tiles. Reads the loaded bytes once, from end to end; codes are not checked.
    ///
    /// # Panics
    /// If `out` is not [`BitLinear::packed_bytes`] long or does not start on a cache line.
    pub fn pack_into(&self, out: &mut [u8]) {
        assert_eq!(out.len(), self.packed_bytes(), "room for all tiles");
        pack(self.level, &self.tensor, out);
    }

    /// The same layer over tiles that [`BitLinear::pack_into`] wrote, now or in an earlier run.
    ///
    /// # Errors
    /// [`Error::NoKernel`] for F32 activations, [`Error::PackedBytes`] for bytes of another length or at an odd address.
    pub fn with_packed(self, bytes: Bytes) -> Result<BitLinear> {
        if !KernelKind::Tiles.takes(self.mode) {
            return Err(Error::NoKernel {
                kernel: KernelKind::Tiles,
                ty: self.tensor.packing().name(),
                mode: self.mode,
            });
        }
        Ok(BitLinear { layout: Layout::Tiles(TileMatrix::new(&self.tensor, bytes)?), ..self })
    }

    /// Bytes of weights in a layout of the kernel's own; 0 where it reads those of the file.
    #[must_use]
    pub fn layout_bytes(&self) -> usize {
        match &self.layout {
            Layout::File => 0,
            Layout::Lookup(matrix) => matrix.layout_bytes(),
            Layout::Tiles(matrix) => matrix.bytes().len(),
        }
    }

    /// Writes the weights of row `r` `[cols]`.
    ///
    /// # Errors
    /// The first damaged block.
    ///
    /// # Panics
    /// If there is no such row or `out` is not `[cols]`.
    pub fn dequantize_row(&self, r: usize, out: &mut [f32]) -> Result<()> {
        assert_eq!(out.len(), self.cols, "one value per column");
        if self.cols == self.tensor.cols() {
            return Ok(self.tensor.dequantize_row(r, out)?);
        }
        for (b, out) in out.chunks_mut(BLOCK).enumerate() {
            let mut values = [0.0; BLOCK];
            self.tensor.block(r, b)?.dequantize(&mut values);
            out.copy_from_slice(&values[..out.len()]);
        }
        Ok(())
    }

    /// The rows `start..end` as a layer over the same bytes.
    ///
    /// # Errors
    /// [`Error::RowRange`] when the range is empty or leaves the matrix.
    pub fn slice_rows(&self, start: usize, end: usize) -> Result<BitLinear> {
        let (packing, rows, cols) = (self.tensor.packing(), self.tensor.rows(), self.tensor.cols());
        if start >= end || end > rows {
            return Err(Error::RowRange { start, end, rows });
        }
        let row_bytes = packing.row_bytes(cols)?;
        let bytes = self.tensor.bytes().slice(start * row_bytes..end * row_bytes);
        let tensor = TernaryTensor::new(packing, end - start, cols, bytes, self.tensor.scales())?;
        let layout = match &self.layout {
            Layout::File => Layout::File,
            Layout::Lookup(matrix) => Layout::Lookup(matrix.view_from_row(start)),
            Layout::Tiles(matrix) => Layout::Tiles(matrix.slice(start, end)),
        };
        Ok(BitLinear { tensor, layout, ..*self })
    }

    /// The rows that are the columns of `out`, for all tokens of `acts`.
    ///
    /// # Panics
    /// If the activations are not quantised for the mode.
    pub(crate) fn forward_block(&self, acts: &ActivationBuffer, out: ColumnBlock<'_, f32>) {
        match &self.layout {
            Layout::File => match self.tensor.packing() {
                Packing::Tq2_0 => self.forward_as::<Tq2>(acts, out),
                Packing::Tq1_0 => self.forward_as::<Tq1>(acts, out),
                Packing::BitnetT158 => self.forward_as::<T158>(acts, out),
            },
            Layout::Lookup(matrix) => match matrix.grouping() {
                Grouping::Pairs => self.forward_lookup::<Tl1>(matrix, acts, out),
                Grouping::Triples => self.forward_lookup::<Tl2>(matrix, acts, out),
            },
            Layout::Tiles(matrix) => self.forward_tiles(matrix, acts, out, TABLE_ROWS),
        }
    }

    /// Rows per piece of a work list of `list_rows` rows for `n` tokens, where these fill a table.
    pub(crate) fn table_rows_per_piece(&self, list_rows: usize, n: usize, threads: usize) -> Option<usize> {
        let tokens = self.table_tokens();
        if tokens > 0 && n >= tokens { rows_per_piece(list_rows, threads) } else { None }
    }

    /// Tokens that share a table of partial sums, 0 where the kernel makes none.
    pub(crate) fn table_tokens(&self) -> usize {
        match self.layout {
            Layout::Tiles(_) => self.level.run(TableTokens),
            Layout::File | Layout::Lookup(_) => 0,
        }
    }

    /// As [`BitLinear::forward_block`], but token tables are made for any number of rows.
    ///
    /// # Panics
    /// If the activations are not quantised for the mode.
    pub(crate) fn forward_tables(&self, acts: &ActivationBuffer, out: ColumnBlock<'_, f32>) {
        if let Layout::Tiles(matrix) = &self.layout {
            self.forward_tiles(matrix, acts, out, 1);
        }
    }

    /// Compares the lookup tables that the kernel reads for `acts` with their definition.
    ///
    /// # Errors
    /// [`Error::TableEntry`] for the first entry that differs.
    ///
    /// # Panics
    /// If the activations are not quantised for the mode.
    pub(crate) fn verify_tables(&self, acts: &ActivationBuffer) -> Result<()> {
        let Layout::Lookup(matrix) = &self.layout else {
            return Ok(());
        };
        let (acts, table) = self.looked_up(matrix, acts);
        table.verify(acts)
    }

    fn forward_tiles(
        &self,
        matrix: &TileMatrix,
        acts: &ActivationBuffer,
        out: ColumnBlock<'_, f32>,
        tables_from_rows: usize,
    ) {
        let acts = acts.quantized(self.mode).expect("activations are quantised in the layer's mode");
        let scales = self.tensor.scales();
        with_scratch(matrix.scratch_blocks(out.n_rows()), |scratch| {
            with_tables(|tables| {
                self.level.run(TileProduct { matrix, scales, acts, out, scratch, tables, tables_from_rows });
            });
        });
    }

    fn forward_as<P: TernaryFormat>(&self, acts: &ActivationBuffer, out: ColumnBlock<'_, f32>) {
        let rows = TernaryRows { tensor: &self.tensor, packing: PhantomData::<P> };
        if self.mode == ActMode::F32 {
            with_panel(|panel| self.level.run(TernaryFloatProduct { rows, acts, out, panel }));
        } else {
            let acts = acts.quantized(self.mode).expect("activations are quantised in the layer's mode");
            with_scratch(tile_scratch(self.tensor.blocks_per_row(), out.n_rows()), |tile| {
                self.level.run(TernaryProduct { rows, acts, out, tile });
            });
        }
    }

    /// The codes of the activations, and their look-up tables.
    fn looked_up<'a>(&self, matrix: &LookupMatrix, acts: &'a ActivationBuffer) -> (&'a QuantizedRows, TableGuard<'a>) {
        let table = acts.lookup_table(self.mode, self.level, matrix.grouping());
        acts.quantized(self.mode).zip(table).expect("activations are quantised in the layer's mode")
    }

    fn forward_lookup<F: LookupFormat>(
        &self,
        matrix: &LookupMatrix,
        acts: &ActivationBuffer,
        out: ColumnBlock<'_, f32>,
    ) {
        let ((acts, table), scales) = (self.looked_up(matrix, acts), self.tensor.scales());
        self.level.run(LookupProduct { matrix, format: PhantomData::<F>, scales, acts, table: &table, out });
    }
}
