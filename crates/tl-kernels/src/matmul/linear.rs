//! A linear layer `y = W x` over weights of any type.
//!
//! **Invariant:** the kernel is chosen when the layer is made and stays; results do not depend on it.

use ternary_core::{ActMode, Bytes, TernaryTensor};

use super::formats::{Bf16, DenseType, F16, F32, Q2_0, Q6K, Q8_0};
use super::kind::KernelKind;
use super::matrix::Dense;
use super::pieces::rows_per_task;
use super::rounded::Rounded;
use super::ternary::BitLinear;
use crate::activations::ActivationBuffer;
use crate::arch::Isa;
use crate::error::{Error, Result};
use crate::pool::{ColumnBlock, Grid, Pool};

/// A matrix `[rows, cols]` = `[out_features, in_features]` that maps activations.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Linear {
    /// Weights in IEEE single precision.
    F32(Dense<F32>),
    /// Weights in IEEE half precision.
    F16(Dense<F16>),
    /// Weights in the format bfloat16.
    Bf16(Dense<Bf16>),
    /// Weights of 8 bits in blocks of 32.
    Q8_0(Dense<Q8_0>),
    /// Weights of 6 bits in blocks of 256.
    Q6K(Dense<Q6K>),
    /// Ternary weights in blocks of 64.
    Q2_0(Dense<Q2_0>),
    /// Ternary weights in blocks of 256.
    Ternary(BitLinear),
    /// Weights in single precision, for activations that each product rounds.
    Rounded(Rounded),
}

/// Evaluates the same expression for every kind of weights.
macro_rules! each {
    ($self:expr, $w:ident => $body:expr) => {
        match $self {
            Linear::F32($w) => $body,
            Linear::F16($w) => $body,
            Linear::Bf16($w) => $body,
            Linear::Q8_0($w) => $body,
            Linear::Q6K($w) => $body,
            Linear::Q2_0($w) => $body,
            Linear::Ternary($w) => $body,
            Linear::Rounded($w) => $body,
        }
    };
}

/// Evaluates the same expression for every kind of weights and wraps the result in the same variant.
macro_rules! map {
    ($self:expr, $w:ident => $body:expr) => {
        match $self {
            Linear::F32($w) => Linear::F32($body),
            Linear::F16($w) => Linear::F16($body),
            Linear::Bf16($w) => Linear::Bf16($body),
            Linear::Q8_0($w) => Linear::Q8_0($body),
            Linear::Q6K($w) => Linear::Q6K($body),
            Linear::Q2_0($w) => Linear::Q2_0($body),
            Linear::Ternary($w) => Linear::Ternary($body),
            Linear::Rounded($w) => Linear::Rounded($body),
        }
    };
}

/// Numbers whose bytes are those of a file.
struct LittleEndian(Vec<f32>);

impl AsRef<[u8]> for LittleEndian {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl Linear {
    /// A layer over dense weights `bytes`, row after row, as a file stores them.
    ///
    /// # Errors
    /// A shape without elements, rows that are no whole blocks, or bytes of another length.
    pub fn dense(ty: DenseType, rows: usize, cols: usize, bytes: Bytes) -> Result<Linear> {
        Ok(match ty {
            DenseType::F32 => Linear::F32(Dense::new(rows, cols, bytes)?),
            DenseType::F16 => Linear::F16(Dense::new(rows, cols, bytes)?),
            DenseType::Bf16 => Linear::Bf16(Dense::new(rows, cols, bytes)?),
            DenseType::Q8_0 => Linear::Q8_0(Dense::new(rows, cols, bytes)?),
            DenseType::Q6K => Linear::Q6K(Dense::new(rows, cols, bytes)?),
            DenseType::Q2_0 => Linear::Q2_0(Dense::new(rows, cols, bytes)?),
        })
    }

    /// A layer over ternary weights, for activations in `mode`.
    ///
    /// # Errors
    /// [`crate::Error::EmptyMatrix`].
    pub fn ternary(tensor: TernaryTensor, mode: ActMode) -> Result<Linear> {
        Ok(Linear::Ternary(BitLinear::new(tensor, mode)?))
    }

    /// As [`Linear::ternary`], for rows of `cols` weights that were padded with zeros to whole blocks.
    ///
    /// # Errors
    /// As [`BitLinear::with_cols`].
    pub fn ternary_padded(tensor: TernaryTensor, cols: usize, mode: ActMode) -> Result<Linear> {
        Ok(Linear::Ternary(BitLinear::new(tensor, mode)?.with_cols(cols)?))
    }

    /// A layer over `weights` `[rows, cols]` in F32 that rounds activations as [`Rounded`] says: numbers, or trits with one
    /// `scale`.
    ///
    /// # Errors
    /// As [`Rounded::new`].
    pub fn rounded(rows: usize, cols: usize, weights: Bytes, scale: Option<f32>) -> Result<Linear> {
        Ok(Linear::Rounded(Rounded::new(rows, cols, weights, scale)?))
    }

    /// A layer over weights in memory, `[rows, cols]`.
    ///
    /// # Errors
    /// A shape without elements or of another size than `weights`.
    pub fn from_f32(rows: usize, cols: usize, mut weights: Vec<f32>) -> Result<Linear> {
        if cfg!(target_endian = "big") {
            weights.iter_mut().for_each(|w| *w = f32::from_bits(w.to_bits().swap_bytes()));
        }
        Linear::dense(DenseType::F32, rows, cols, Bytes::from_owner(LittleEndian(weights)))
    }

    /// Reads all ternary codes and scales; dense weights have no invalid bytes.
    ///
    /// # Errors
    /// [`crate::Error::Ternary`] with the first damaged block.
    pub fn validate(&self) -> Result<()> {
        match self {
            Linear::Ternary(w) => Ok(w.tensor().validate()?),
            _ => Ok(()),
        }
    }

    /// Number of output features.
    #[must_use]
    pub fn rows(&self) -> usize {
        each!(self, w => w.rows())
    }

    /// Number of input features.
    #[must_use]
    pub fn cols(&self) -> usize {
        each!(self, w => w.cols())
    }

    /// The bytes of the weights that products read.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        each!(self, w => w.bytes())
    }

    /// The name of the weights' type.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Linear::F32(_) => DenseType::F32.name(),
            Linear::F16(_) => DenseType::F16.name(),
            Linear::Bf16(_) => DenseType::Bf16.name(),
            Linear::Q8_0(_) => DenseType::Q8_0.name(),
            Linear::Q6K(_) => DenseType::Q6K.name(),
            Linear::Q2_0(_) => DenseType::Q2_0.name(),
            Linear::Ternary(w) => w.tensor().packing().name(),
            Linear::Rounded(_) => "F32-rounded",
        }
    }

    /// The precision of the activations: [`ActivationBuffer::quantize`] must be called with it before [`Linear::forward`].
    #[must_use]
    pub fn act_mode(&self) -> ActMode {
        match self {
            Linear::Ternary(w) => w.act_mode(),
            Linear::Q8_0(w) => w.act_mode(),
            Linear::Q6K(w) => w.act_mode(),
            Linear::Q2_0(w) => w.act_mode(),
            _ => ActMode::F32,
        }
    }

    /// The same layer for activations in `mode`, if its weights are Q8_0, Q6_K or Q2_0. Floating-point weights take F32, and
    /// ternary ones the mode that they were made for.
    #[must_use]
    pub fn with_act_mode(self, mode: ActMode) -> Linear {
        match self {
            Linear::Q8_0(w) => Linear::Q8_0(w.with_act_mode(mode)),
            Linear::Q6K(w) => Linear::Q6K(w.with_act_mode(mode)),
            Linear::Q2_0(w) => Linear::Q2_0(w.with_act_mode(mode)),
            other => other,
        }
    }

    /// The level its kernels run on: [`Isa::current`] unless changed.
    #[must_use]
    pub fn isa(&self) -> Isa {
        each!(self, w => w.isa())
    }

    /// The same layer on another level.
    ///
    /// # Errors
    /// [`crate::Error::UnsupportedIsa`].
    pub fn with_isa(self, isa: Isa) -> Result<Linear> {
        Ok(map!(self, w => w.with_isa(isa)?))
    }

    /// The algorithm of its products.
    #[must_use]
    pub fn kernel(&self) -> KernelKind {
        match self {
            Linear::Ternary(w) => w.kernel(),
            _ => KernelKind::Dense,
        }
    }

    /// The same layer with another kernel.
    ///
    /// # Errors
    /// [`crate::Error::NoKernel`] where the kernel does not multiply such weights with such activations, and a damaged
    /// ternary block.
    pub fn with_kernel(self, kernel: KernelKind) -> Result<Linear> {
        match self {
            Linear::Ternary(w) => Ok(Linear::Ternary(w.with_kernel(kernel)?)),
            dense if kernel == KernelKind::Dense => Ok(dense),
            dense => Err(Error::NoKernel { kernel, ty: dense.type_name(), mode: dense.act_mode() }),
        }
    }

    /// The ternary weights, if they lie as in their file and could be packed as tiles, which are read faster.
    #[must_use]
    pub fn packable(&self) -> Option<&BitLinear> {
        match self {
            Linear::Ternary(w) if w.is_packable() => Some(w),
            _ => None,
        }
    }

    /// The rows `start..end` as a layer over the same bytes.
    ///
    /// # Errors
    /// [`crate::Error::RowRange`] when the range is empty or leaves the matrix.
    pub fn slice_rows(&self, start: usize, end: usize) -> Result<Linear> {
        Ok(map!(self, w => w.slice_rows(start, end)?))
    }

    /// Writes the weights of row `r` `[cols]`.
    ///
    /// # Errors
    /// A damaged ternary block.
    ///
    /// # Panics
    /// If there is no such row or `out` is not `[cols]`.
    pub fn dequantize_row(&self, r: usize, out: &mut [f32]) -> Result<()> {
        match self {
            Linear::Ternary(w) => w.dequantize_row(r, out)?,
            Linear::F32(w) => w.dequantize_row(r, out),
            Linear::F16(w) => w.dequantize_row(r, out),
            Linear::Bf16(w) => w.dequantize_row(r, out),
            Linear::Q8_0(w) => w.dequantize_row(r, out),
            Linear::Q6K(w) => w.dequantize_row(r, out),
            Linear::Q2_0(w) => w.dequantize_row(r, out),
            Linear::Rounded(w) => w.dequantize_row(r, out),
        }
        Ok(())
    }

    /// `y[t] = W x[t]` for all tokens of `acts`; `y` is `[n, rows]`.
    ///
    /// # Panics
    /// If the activations are not `[n, cols]`, `y` is not `[n, rows]`, or the activations were not
    /// quantised in [`Linear::act_mode`].
    pub fn forward(&self, pool: &Pool, acts: &ActivationBuffer, y: &mut [f32]) {
        forward_all(pool, [Product { linear: self, acts, y }]);
    }

    /// The rows `out.columns()` of `y = W x` for all tokens of `acts`, computed on the calling thread: a piece of a work
    /// list. `out` has one row per token.
    ///
    /// # Panics
    /// If the activations are not `[n, cols]` or not quantised in [`Linear::act_mode`], or `out` does not have one row
    /// per token, or its columns go beyond the rows of the matrix.
    pub fn forward_block(&self, acts: &ActivationBuffer, out: ColumnBlock<'_, f32>) {
        assert_eq!(acts.cols(), self.cols(), "activations must have one value per column");
        assert_eq!(out.n_rows(), acts.n(), "the output must have one row per token");
        assert!(out.columns().end <= self.rows(), "columns {:?} of {}", out.columns(), self.rows());
        #[cfg(any(test, feature = "broken-kernel"))]
        if super::broken::is_broken(self.kernel(), self.isa()) {
            return super::broken::product(out);
        }
        match self {
            Linear::F32(w) => w.forward_block(acts, out),
            Linear::F16(w) => w.forward_block(acts, out),
            Linear::Bf16(w) => w.forward_block(acts, out),
            Linear::Q8_0(w) => w.forward_block_in_mode(acts, out),
            Linear::Q6K(w) => w.forward_block_in_mode(acts, out),
            Linear::Q2_0(w) => w.forward_block_in_mode(acts, out),
            Linear::Ternary(w) => w.forward_block(acts, out),
            Linear::Rounded(w) => w.forward_block(acts, out),
        }
    }

    /// Output rows per piece of a work list that has `list_rows` rows like those of this matrix, for `n` tokens.
    #[must_use]
    pub fn rows_per_piece(&self, list_rows: usize, n: usize, threads: usize) -> usize {
        if threads == 1 {
            return self.rows();
        }
        let by_tables = match self {
            Linear::Ternary(w) => w.table_rows_per_piece(list_rows, n, threads),
            _ => None,
        };
        let rows = by_tables.unwrap_or_else(|| rows_per_task(list_rows, self.cols().saturating_mul(n), threads));
        rows.next_multiple_of(self.kernel().group_rows())
    }
}

/// One product of a list for [`forward_all`].
#[derive(Debug)]
pub struct Product<'a> {
    /// The weights `[rows, cols]`.
    pub linear: &'a Linear,
    /// `[n, cols]`, quantised in the mode of the weights.
    pub acts: &'a ActivationBuffer,
    /// The results `[n, rows]`.
    pub y: &'a mut [f32],
}

/// `y[t] = W x[t]` for several independent products as one work list, so that the threads wait for each other once, at
/// its end.
///
/// # Panics
/// As [`Linear::forward`].
pub fn forward_all<const N: usize>(pool: &Pool, products: [Product<'_>; N]) {
    let cuts = products.each_ref().map(|p| [0, p.acts.n()]);
    let mut next_cuts = cuts.iter();
    let list = products.map(|Product { linear, acts, y }| {
        assert_eq!(y.len(), acts.n() * linear.rows(), "the output must be [n, rows]");
        let cuts = next_cuts.next().expect("as many as products");
        let block = linear.rows_per_piece(linear.rows(), acts.n(), pool.threads());
        (linear, acts, Grid::new(y, linear.rows(), cuts, block))
    });
    let n_pieces = list.iter().map(|(_, _, grid)| grid.n_cells()).sum::<usize>();
    pool.run(n_pieces.min(pool.threads()), &|_| {
        for (linear, acts, grid) in &list {
            while let Some((_, out)) = grid.take() {
                linear.forward_block(acts, out);
            }
        }
    });
}
