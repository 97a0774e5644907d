//! A dense matrix over shared bytes in one of the stored types.
//!
//! **Invariant:** the bytes are exactly `rows * row_bytes` long; checked once, when it is made.

use std::marker::PhantomData;

use ternary_core::{ActMode, Bytes};

use super::dense::{DenseProduct, PackedRows, PanelSource, with_panel};
use super::formats::{DenseFormat, IntegerFormat, row_bytes};
use super::integer::{self, IntegerProduct};
use crate::activations::ActivationBuffer;
use crate::arch::{Isa, Level};
use crate::error::{Error, Result};
use crate::pool::ColumnBlock;
use crate::simd::{Kernel, LANES, Simd};

/// A matrix `[rows, cols]` of dense weights, read as it is stored.
#[derive(Debug, Clone)]
pub struct Dense<F> {
    rows: usize,
    cols: usize,
    row_bytes: usize,
    bytes: Bytes,
    format: PhantomData<F>,
    mode: ActMode,
    level: Level,
}

impl<F: DenseFormat> Dense<F> {
    /// A matrix over `bytes`, row after row.
    ///
    /// # Errors
    /// A shape without elements, rows that are no whole blocks, or bytes of another length.
    pub fn new(rows: usize, cols: usize, bytes: Bytes) -> Result<Dense<F>> {
        if rows == 0 || cols == 0 {
            return Err(Error::EmptyMatrix { rows, cols });
        }
        let ty = F::NAME;
        let row_bytes = row_bytes(ty, F::BLOCK_LEN, F::BLOCK_BYTES, cols)?;
        let expected = rows.checked_mul(row_bytes).ok_or(Error::ShapeOverflow { ty, rows, cols })?;
        let got = bytes.len();
        if got != expected {
            return Err(Error::ByteLength { ty, rows, cols, expected, got });
        }
        let (format, mode, level) = (PhantomData, ActMode::F32, Isa::current().level()?);
        Ok(Dense { rows, cols, row_bytes, bytes, format, mode, level })
    }

    /// Number of output features.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of input features.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The bytes of the weights, row after row.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The precision of the activations it multiplies.
    #[must_use]
    pub fn act_mode(&self) -> ActMode {
        self.mode
    }

    /// The level its kernels run on.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.level.isa()
    }

    /// The same matrix on another level.
    ///
    /// # Errors
    /// [`Error::UnsupportedIsa`].
    pub fn with_isa(mut self, isa: Isa) -> Result<Dense<F>> {
        self.level = isa.level()?;
        Ok(self)
    }

    /// The rows `start..end` as a matrix over the same bytes.
    ///
    /// # Errors
    /// [`Error::RowRange`] when the range is empty or leaves the matrix.
    pub fn slice_rows(&self, start: usize, end: usize) -> Result<Dense<F>> {
        if start >= end || end > self.rows {
            return Err(Error::RowRange { start, end, rows: self.rows });
        }
        Ok(Dense {
            rows: end - start,
            bytes: self.bytes.slice(start * self.row_bytes..end * self.row_bytes),
            ..self.clone()
        })
    }

    /// Writes the weights of row `r` `[cols]`.
    ///
    /// # Panics
    /// If there is no such row or `out` is not `[cols]`.
    pub fn dequantize_row(&self, r: usize, out: &mut [f32]) {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        assert_eq!(out.len(), self.cols, "a row has {} weights", self.cols);
        with_panel(|panel| {
            let padded = self.cols.next_multiple_of(LANES);
            panel.resize(padded);
            let (lanes, _) = panel.as_mut_slice().as_chunks_mut();
            self.level.run(ConvertRow { rows: self.packed(), r, out: lanes });
            out.copy_from_slice(&panel.as_slice()[..self.cols]);
        });
    }

    /// `dot16(row r, x[t])` for all tokens t of `acts` and the rows r that are the columns of `out`.
    pub(crate) fn forward_block(&self, acts: &ActivationBuffer, out: ColumnBlock<'_, f32>) {
        with_panel(|panel| {
            let rows = self.packed();
            self.level.run(DenseProduct { rows, acts, out, panel });
        });
    }

    fn packed(&self) -> PackedRows<'_, F> {
        PackedRows { bytes: &self.bytes, row_bytes: self.row_bytes, format: self.format }
    }
}

impl<F: IntegerFormat> Dense<F> {
    /// The same matrix for activations in `mode`.
    pub(crate) fn with_act_mode(self, mode: ActMode) -> Dense<F> {
        Dense { mode, ..self }
    }

    /// As [`Dense::forward_block`], in the mode of the matrix.
    ///
    /// # Panics
    /// If the activations are not quantised in that mode.
    pub(crate) fn forward_block_in_mode(&self, acts: &ActivationBuffer, out: ColumnBlock<'_, f32>) {
        if self.mode == ActMode::F32 {
            return self.forward_block(acts, out);
        }
        let acts = acts.quantized(self.mode).expect("activations are quantised before the product");
        let (bytes, row_bytes, format) = (&*self.bytes, self.row_bytes, self.format);
        integer::with_panel(|panel| self.level.run(IntegerProduct { bytes, row_bytes, acts, out, format, panel }));
    }
}

/// Conversion of one row.
struct ConvertRow<'a, F> {
    rows: PackedRows<'a, F>,
    r: usize,
    out: &'a mut [[f32; LANES]],
}

impl<F: DenseFormat> Kernel for ConvertRow<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.rows.convert(s, self.r, self.out);
    }
}
