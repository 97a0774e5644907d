//! The scalar ternary product, which every kernel must reproduce bit for bit.
//!
//! One output is the product of a row of blocks (trits `t`, scale `d`) with a token's activations:
//!
//! ```text
//! F32       dot16(dequantised row, x)
//! A8Block   acc = fma(d_b * a_b, int_b, acc) over ascending blocks b, from acc = 0
//! A8Token   the same with one a for all blocks
//!           int_b = sum of t * q over block b, an exact integer; q, a from quantize_a8
//!           a_b is the scale of the 256 activations that block b meets a part of
//! ```
//!
//! **Invariant**: an output depends on its row and its token alone, never on the other tokens.
//!
//! ```
//! use ternary_core::{ActMode, Packing, Rounding, TernaryTensor, oracle};
//!
//! let w = TernaryTensor::quantize(
//!     Packing::Tq1_0, Rounding::AbsMean, 1, 256, &[0.5; 256], None)?;
//! let mut y = [0.0];
//! oracle::gemv(&w, &[2.0; 256], ActMode::A8Token, &mut y)?;
//! assert!((y[0] - 256.0).abs() < 1e-3);
//! # Ok::<(), ternary_core::Error>(())
//! ```

use alloc::vec;
use alloc::vec::Vec;

use crate::{ActMode, BLOCK, Result, TernaryBlock, TernaryTensor, dot16, fma, quantize_a8};

/// `y = W x` for one token: `x` is `[cols]`, `y` is `[rows]`.
///
/// # Errors
/// The first defect met in the weights.
///
/// # Panics
/// If a length does not fit.
pub fn gemv(w: &TernaryTensor, x: &[f32], mode: ActMode, y: &mut [f32]) -> Result<()> {
    gemm(w, x, 1, mode, y)
}

/// `Y = X W^T` for `n` tokens: `x` is `[n, cols]`, `y` is `[n, rows]`.
///
/// # Errors
/// The first defect met in the weights.
///
/// # Panics
/// If a length does not fit.
pub fn gemm(w: &TernaryTensor, x: &[f32], n: usize, mode: ActMode, y: &mut [f32]) -> Result<()> {
    assert_eq!(x.len(), n * w.cols(), "activations of {n} tokens");
    assert_eq!(y.len(), n * w.rows(), "outputs of {n} tokens");
    let tokens: Vec<_> = x.chunks_exact(w.cols()).map(|x| Activations::new(x, mode)).collect();

    for r in 0..w.rows() {
        let row = (0..w.blocks_per_row()).map(|b| w.block(r, b)).collect::<Result<Vec<_>>>()?;
        for (i, token) in tokens.iter().enumerate() {
            y[i * w.rows() + r] = token.dot(&row);
        }
    }
    Ok(())
}

/// One output: a row of blocks of `N` weights times the token `x` `[cols]`. Activations are rounded in blocks of 256
/// whatever `N` is; the last of them may be shorter.
///
/// # Panics
/// If the blocks do not hold one weight per activation, or blocks of activations are no whole number of them.
#[must_use]
pub fn dot<const N: usize>(row: &[TernaryBlock<N>], x: &[f32], mode: ActMode) -> f32 {
    assert_eq!(row.len() * N, x.len(), "one weight per activation");
    assert!(BLOCK.is_multiple_of(N), "256 activations meet whole blocks");
    Activations::new(x, mode).dot(row)
}

/// One token's activations in the representation that the mode asks for.
enum Activations<'a> {
    Float(&'a [f32]),
    /// Codes, and the scale of each block of 256; with one scale per token, all scales are equal.
    Int8(Vec<i8>, Vec<f32>),
}

impl<'a> Activations<'a> {
    fn new(x: &'a [f32], mode: ActMode) -> Self {
        let mut q = vec![0; x.len()];
        let scales = match mode {
            ActMode::F32 => return Self::Float(x),
            ActMode::A8Block => x.chunks(BLOCK).zip(q.chunks_mut(BLOCK)).map(|(x, q)| quantize_a8(x, q)).collect(),
            ActMode::A8Token => vec![quantize_a8(x, &mut q); x.len().div_ceil(BLOCK)],
        };
        Self::Int8(q, scales)
    }

    fn dot<const N: usize>(&self, row: &[TernaryBlock<N>]) -> f32 {
        match self {
            Self::Float(x) => {
                let mut weights = vec![0.0; x.len()];
                for (block, out) in row.iter().zip(weights.as_chunks_mut().0) {
                    block.dequantize(out);
                }
                dot16(&weights, x)
            }
            Self::Int8(q, scales) => row
                .iter()
                .zip(q.as_chunks().0)
                .enumerate()
                .fold(0.0, |acc, (b, (w, q))| fma(w.scale * scales[b * N / BLOCK], w.dot(q) as f32, acc)),
        }
    }
}
