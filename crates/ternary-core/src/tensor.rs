//! A ternary matrix: packed blocks, row after row, over shared bytes.
//!
//! ```text
//! row 0: block 0 | block 1 | ... | block cols/256 - 1
//! row 1: ...                                          no padding between rows
//! ```
//!
//! **Invariant**: the bytes are exactly as long as the shape needs. Codes and scales are checked
//! by [`TernaryTensor::validate`] and by every read, not when the tensor is made, because opening
//! a file must not read it all.
//!
//! ```
//! use ternary_core::{Bytes, Packing, Scales, TernaryTensor};
//!
//! let zeros = vec![0x55; 66]; // code 1 is the weight 0, and 0x5555 a finite scale
//! let tensor = TernaryTensor::new(Packing::Tq2_0, 1, 256, Bytes::from(zeros), Scales::PerBlock)?;
//! tensor.validate()?;
//! # Ok::<(), ternary_core::Error>(())
//! ```

use alloc::vec;

use crate::{BLOCK, Bytes, Error, I2sLayout, Packing, Result, Rounding, TernaryBlock, f16, quantize_row};

/// The place of a ternary tensor's scales.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scales {
    /// In every block, as f16.
    PerBlock,
    /// One for the whole tensor; the scales in the blocks are not used.
    PerTensor(f32),
}

/// A ternary matrix `[rows, cols]`: the weights of `y = W x`.
#[derive(Debug, Clone, PartialEq)]
pub struct TernaryTensor {
    packing: Packing,
    rows: usize,
    cols: usize,
    bytes: Bytes,
    scales: Scales,
}

impl TernaryTensor {
    /// A tensor over `bytes`, whose codes and scales are not read yet.
    ///
    /// # Errors
    /// [`Error::NotBlocks`], [`Error::TooLarge`] and [`Error::Span`] where shape and length do not
    /// fit each other; [`Error::BadScale`] for a tensor scale that is not finite.
    pub fn new(packing: Packing, rows: usize, cols: usize, bytes: Bytes, scales: Scales) -> Result<Self> {
        let expected_bytes = tensor_bytes(packing, rows, cols)?;
        if bytes.len() != expected_bytes {
            return Err(Error::Span { expected_bytes, got_bytes: bytes.len() });
        }
        if let Scales::PerTensor(scale) = scales
            && !scale.is_finite()
        {
            return Err(Error::BadScale { block: 0, scale });
        }
        Ok(Self { packing, rows, cols, bytes, scales })
    }

    /// Quantises the dense matrix `weights` `[rows, cols]`.
    ///
    /// `importance` `[cols]` weighs the error of each column, as in [`quantize_block`].
    ///
    /// [`quantize_block`]: crate::quantize_block
    ///
    /// # Errors
    /// The errors of the shape as in [`new`](Self::new); [`Error::NotFinite`] and
    /// [`Error::BadImportance`].
    ///
    /// # Panics
    /// If `weights` or `importance` has another length than the shape says.
    pub fn quantize(
        packing: Packing,
        rounding: Rounding,
        rows: usize,
        cols: usize,
        weights: &[f32],
        importance: Option<&[f32]>,
    ) -> Result<Self> {
        let row_bytes = packing.row_bytes(cols)?;
        let n_bytes = tensor_bytes(packing, rows, cols)?;
        assert_eq!(weights.len(), rows * cols, "weights of a [{rows}, {cols}] matrix");
        let mut bytes = vec![0; n_bytes];
        let packed = bytes.chunks_exact_mut(row_bytes);
        for (r, (row, out)) in weights.chunks_exact(cols).zip(packed).enumerate() {
            quantize_row(packing, rounding, row, importance, out).map_err(|e| e.offset_block(r * (cols / BLOCK)))?;
        }
        Self::new(packing, rows, cols, Bytes::from(bytes), Scales::PerBlock)
    }

    /// Repacks an I2_S tensor as TQ2_0 with its one scale.
    ///
    /// # Errors
    /// The errors of the shape as in [`new`](Self::new), and of [`I2sLayout::decode`].
    pub fn from_i2s(layout: I2sLayout, rows: usize, cols: usize, bytes: &[u8]) -> Result<Self> {
        let packing = Packing::Tq2_0;
        let packed_bytes = tensor_bytes(packing, rows, cols)?;
        let (trits, scale) = layout.decode(bytes, rows * cols)?;
        let mut packed = vec![0; packed_bytes];
        let blocks = trits.as_chunks::<BLOCK>().0;
        for (block, out) in blocks.iter().zip(packed.chunks_exact_mut(packing.block_bytes())) {
            packing.encode(block, f16::ONE, out);
        }
        Self::new(packing, rows, cols, Bytes::from(packed), Scales::PerTensor(scale))
    }

    /// The packing of the tensor's blocks.
    #[must_use]
    pub const fn packing(&self) -> Packing {
        self.packing
    }

    /// Number of rows: the outputs of the product.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns, a multiple of 256: the inputs of the product.
    #[must_use]
    pub const fn cols(&self) -> usize {
        self.cols
    }

    /// The place of the scales: in every block, or one for the tensor.
    #[must_use]
    pub const fn scales(&self) -> Scales {
        self.scales
    }

    /// The packed bytes of all rows.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Blocks in one row.
    #[must_use]
    pub const fn blocks_per_row(&self) -> usize {
        self.cols / BLOCK
    }

    /// The packed bytes of row `r`.
    ///
    /// # Panics
    /// If there is no row `r`.
    #[must_use]
    pub fn row_bytes(&self, r: usize) -> &[u8] {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        let len = self.blocks_per_row() * self.packing.block_bytes();
        &self.bytes[r * len..][..len]
    }

    /// Block `b` of row `r`, decoded, with the scale that applies.
    ///
    /// # Errors
    /// [`Error::InvalidCode`] and [`Error::BadScale`].
    ///
    /// # Panics
    /// If there is no such block.
    pub fn block(&self, r: usize, b: usize) -> Result<TernaryBlock> {
        let len = self.packing.block_bytes();
        let packed = &self.row_bytes(r)[b * len..][..len];
        let mut trits = [0; BLOCK];
        let stored =
            self.packing.decode(packed, &mut trits).map_err(|e| e.offset_block(r * self.blocks_per_row() + b))?;
        let scale = match self.scales {
            Scales::PerBlock => stored.to_f32(),
            Scales::PerTensor(scale) => scale,
        };
        Ok(TernaryBlock { trits, scale })
    }

    /// The values of row `r`.
    ///
    /// # Errors
    /// [`Error::InvalidCode`] and [`Error::BadScale`].
    ///
    /// # Panics
    /// If there is no row `r` or `out` is not `[cols]`.
    pub fn dequantize_row(&self, r: usize, out: &mut [f32]) -> Result<()> {
        assert_eq!(out.len(), self.cols, "one value per column");
        for (b, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            self.block(r, b)?.dequantize(out);
        }
        Ok(())
    }

    /// Reads every code and every scale.
    ///
    /// # Errors
    /// The first [`Error::InvalidCode`] or [`Error::BadScale`].
    pub fn validate(&self) -> Result<()> {
        if self.packing.is_valid(&self.bytes) {
            return Ok(());
        }
        for r in 0..self.rows {
            for b in 0..self.blocks_per_row() {
                self.block(r, b)?;
            }
        }
        Ok(())
    }
}

/// Bytes of a `[rows, cols]` tensor; afterwards `rows * cols` is known not to overflow.
fn tensor_bytes(packing: Packing, rows: usize, cols: usize) -> Result<usize> {
    let row_bytes = packing.row_bytes(cols)?;
    let _weights = rows.checked_mul(cols).ok_or(Error::TooLarge { rows, cols })?;
    // A row has fewer bytes than weights, so this product cannot overflow either.
    Ok(rows * row_bytes)
}
