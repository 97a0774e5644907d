//! Layers of models that were trained with rounded activations, computed in floating point as their training computes them.
//!
//! ```text
//! i = 127 / max|x|,  q = round(x i)                      per token, half to even
//! numbers   y = sum over k of (q_k / i) w_k              k ascending, one fused addition each
//! trits     y = (sum over k of q_k t_k) / i * scale      the sum is exact
//! ```
//! A ternary layer with integer activations gives the same sums but for their last bits. One such bit can tip a code of the
//! next layer, and all that follows from it, so measurements against the original compute in its order.
//!
//! **Invariant:** results are the same on every level: the order of the additions is that of the columns.
//!
//! Source: `BitLinear` and `AutoBitLinear` of Hugging Face transformers (`integrations/bitnet.py`).

use ternary_core::Bytes;

use super::formats::F32;
use super::matrix::Dense;
use crate::activations::ActivationBuffer;
use crate::arch::{Isa, Level};
use crate::error::Result;
use crate::matmul::dense::with_panel;
use crate::memory::AlignedBuffer;
use crate::pool::ColumnBlock;
use crate::simd::{Kernel, LANES, QUAD_ROWS, Simd, fma};

/// Largest code of an activation.
const MAX_CODE: f32 = 127.0;
/// The least magnitude that is scaled up to the largest code.
const LEAST_MAX: f32 = 1e-5;

/// A matrix whose products round the activations of each token.
#[derive(Debug, Clone)]
pub struct Rounded {
    /// The weights, or trits.
    weights: Dense<F32>,
    /// The scale of trits; `None` for weights.
    scale: Option<f32>,
    level: Level,
}

impl Rounded {
    /// A layer over `weights` `[rows, cols]` in F32: numbers, or trits with one `scale`.
    ///
    /// # Errors
    /// As [`Dense::new`].
    pub fn new(rows: usize, cols: usize, weights: Bytes, scale: Option<f32>) -> Result<Rounded> {
        Ok(Rounded { weights: Dense::new(rows, cols, weights)?, scale, level: Isa::current().level()? })
    }

    /// Number of output features.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.weights.rows()
    }

    /// Number of input features.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.weights.cols()
    }

    /// The bytes of the weights, row after row.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        self.weights.bytes()
    }

    /// The level its kernels run on.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.level.isa()
    }

    /// The same layer on another level.
    ///
    /// # Errors
    /// [`crate::Error::UnsupportedIsa`].
    pub fn with_isa(self, isa: Isa) -> Result<Rounded> {
        Ok(Rounded { level: isa.level()?, ..self })
    }

    /// The rows `start..end` as a layer over the same bytes.
    ///
    /// # Errors
    /// [`crate::Error::RowRange`] when the range is empty or leaves the matrix.
    pub fn slice_rows(&self, start: usize, end: usize) -> Result<Rounded> {
        Ok(Rounded { weights: self.weights.slice_rows(start, end)?, ..*self })
    }

    /// Writes the weights of row `r` `[cols]`.
    ///
    /// # Panics
    /// If there is no such row or `out` is not `[cols]`.
    pub fn dequantize_row(&self, r: usize, out: &mut [f32]) {
        self.weights.dequantize_row(r, out);
        out.iter_mut().for_each(|value| *value *= self.scale.unwrap_or(1.0));
    }

    /// The rows that are the columns of `out`, for all tokens of `acts`.
    pub(super) fn forward_block(&self, acts: &ActivationBuffer, out: ColumnBlock<'_, f32>) {
        with_panel(|panel| self.level.run(RoundedProduct { layer: self, acts, out, panel }));
    }

    /// The output of row `r` for one token `x` `[cols]`, by its definition.
    pub(crate) fn reference(&self, r: usize, x: &[f32]) -> f32 {
        let (inverse, mut sum) = (inverse(x), 0.0);
        for (&x, weight) in x.iter().zip(self.row(r)) {
            sum = fma(self.input(x, inverse), f32::from_le_bytes(*weight), sum);
        }
        self.finish(sum, inverse)
    }

    fn row(&self, r: usize) -> &[[u8; 4]] {
        let bytes = 4 * self.cols();
        self.bytes()[r * bytes..(r + 1) * bytes].as_chunks().0
    }

    /// The factor of a weight: the code of an activation, or the activation that the code stands for.
    #[inline(always)]
    fn input(&self, x: f32, inverse: f32) -> f32 {
        let code = (x * inverse).round_ties_even();
        if self.scale.is_some() { code } else { code / inverse }
    }

    #[inline(always)]
    fn finish(&self, sum: f32, inverse: f32) -> f32 {
        match self.scale {
            Some(scale) => sum / inverse * scale,
            None => sum,
        }
    }
}

/// The factor from the activations of a token to their codes.
#[inline(always)]
fn inverse(x: &[f32]) -> f32 {
    MAX_CODE / x.iter().fold(LEAST_MAX, |max, x| if x.abs() > max || x.is_nan() { x.abs() } else { max })
}

/// The product of some rows with all tokens, sixteen tokens at a time.
struct RoundedProduct<'a, 'b> {
    layer: &'a Rounded,
    acts: &'a ActivationBuffer,
    out: ColumnBlock<'b, f32>,
    /// Room for the inputs of sixteen tokens, `[cols, 16]`.
    panel: &'a mut AlignedBuffer<f32>,
}

impl Kernel for RoundedProduct<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let (n, cols, columns) = (self.acts.n(), self.layer.cols(), self.out.columns());
        self.panel.resize(cols * LANES);
        for first in (0..n).step_by(LANES) {
            let tokens = LANES.min(n - first);
            let inverses = self.fill(first, tokens);
            let inputs = self.panel.as_slice().as_chunks::<LANES>().0;
            for start in columns.clone().step_by(QUAD_ROWS) {
                let rows: [&[[u8; 4]]; QUAD_ROWS] =
                    std::array::from_fn(|i| &self.layer.row((start + i).min(columns.end - 1))[..inputs.len()]);
                let mut sums = [s.splat(0.0); QUAD_ROWS];
                for (k, x) in inputs.iter().enumerate() {
                    let x = s.load(x);
                    for i in 0..QUAD_ROWS {
                        sums[i] = s.fma(x, s.splat(f32::from_le_bytes(rows[i][k])), sums[i]);
                    }
                }
                for i in 0..QUAD_ROWS.min(columns.end - start) {
                    let mut of_tokens = [0.0; LANES];
                    s.store(sums[i], &mut of_tokens);
                    for t in 0..tokens {
                        let y = self.layer.finish(of_tokens[t], inverses[t]);
                        self.out.row_mut(first + t)[start + i - columns.start] = y;
                    }
                }
            }
        }
    }
}

impl RoundedProduct<'_, '_> {
    /// Writes the inputs of `tokens` tokens from `first` on to the panel, zeros for the other lanes, and returns the factors
    /// from their activations to codes.
    #[inline(always)]
    fn fill(&mut self, first: usize, tokens: usize) -> [f32; LANES] {
        let mut inverses = [1.0; LANES];
        let panel = self.panel.as_mut_slice().as_chunks_mut::<LANES>().0;
        if tokens < LANES {
            panel.as_flattened_mut().fill(0.0);
        }
        for t in 0..tokens {
            let x = self.acts.row(first + t);
            inverses[t] = inverse(x);
            for (lanes, &x) in panel.iter_mut().zip(x) {
                lanes[t] = self.layer.input(x, inverses[t]);
            }
        }
        inverses
    }
}
