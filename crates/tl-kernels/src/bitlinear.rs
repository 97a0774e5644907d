//! A ternary linear layer: packed ternary weights and the precision of the activations they meet.
//!
//! **Invariant:** equal to `ternary_core::oracle` in its mode, bit for bit, on every level.

use std::marker::PhantomData;

use ternary_core::{ActMode, Bytes, Packing, TernaryTensor};

use crate::activation::ActivationBuffer;
use crate::arch::Level;
use crate::error::{Error, Result};
use crate::gemm::with_panel;
use crate::isa::Isa;
use crate::pool::ColumnBlock;
use crate::ternary::{T158, TernaryFloatProduct, TernaryFormat, TernaryProduct, TernaryRows, Tq1, Tq2};

/// A matrix of ternary weights, read in the layout of its file.
#[derive(Debug, Clone)]
pub struct BitLinear {
    tensor: TernaryTensor,
    mode: ActMode,
    level: Level,
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
        Ok(BitLinear { tensor, mode, level: Isa::current().level()? })
    }

    /// The weights.
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
        self.tensor.cols()
    }

    /// The packed weights.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        self.tensor.bytes()
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
        Ok(BitLinear { tensor, ..*self })
    }

    /// The rows that are the columns of `out`, for all tokens of `acts`.
    ///
    /// # Panics
    /// If the activations are not quantised for the mode.
    pub(crate) fn forward_block(&self, acts: &ActivationBuffer, out: ColumnBlock<'_, f32>) {
        match self.tensor.packing() {
            Packing::Tq2_0 => self.forward_as::<Tq2>(acts, out),
            Packing::Tq1_0 => self.forward_as::<Tq1>(acts, out),
            Packing::BitnetT158 => self.forward_as::<T158>(acts, out),
        }
    }

    fn forward_as<P: TernaryFormat>(&self, acts: &ActivationBuffer, out: ColumnBlock<'_, f32>) {
        let rows = TernaryRows { tensor: &self.tensor, packing: PhantomData::<P> };
        if self.mode == ActMode::F32 {
            with_panel(|panel| self.level.run(TernaryFloatProduct { rows, acts, out, panel }));
        } else {
            let acts = acts.quantized(self.mode).expect("activations are quantised in the layer's mode");
            self.level.run(TernaryProduct { rows, acts, out });
        }
    }
}
