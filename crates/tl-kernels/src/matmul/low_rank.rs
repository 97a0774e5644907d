//! A low-rank addition to a linear layer: `y += B (s * (A x))`, for `A` `[rank, inputs]` and `B` `[outputs, rank]`.
//!
//! ```text
//! u[r]  = s[r] * dot16(A[r], x)             one number per rank
//! y[o]  = fma(u[r], B[o][r], y[o])          over ascending r
//! ```
//! The sum of two additions is one addition of the ranks of the first, then those of the second.
//!
//! **Invariant:** the bits of an output depend on its input row and its value before alone: not on the columns that are
//! computed together, nor on threads, nor on the instruction set.
//!
//! Source: LoRA (arXiv 2106.09685, section 4.1).

use std::ops::Range;

use crate::activations::ActivationBuffer;
use crate::attention::dense::{axpy_f32, dot_f32};
use crate::error::{Error, Result};
use crate::pool::Pool;

/// A product of two thin matrices that is added to the output of a [`Linear`](crate::Linear).
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank {
    inputs: usize,
    outputs: usize,
    /// The rows of `A`, `[rank, inputs]`.
    a: Vec<f32>,
    /// The columns of `B`, `[rank, outputs]`.
    b: Vec<f32>,
    /// One factor per rank, `[rank]`.
    scales: Vec<f32>,
}

impl LowRank {
    /// The addition of `scale * B A` for `a` `[rank, inputs]` and `b` `[outputs, rank]`.
    ///
    /// # Errors
    /// [`Error::LowRankShape`] when the factors do not fit each other, or have no elements.
    pub fn new(inputs: usize, outputs: usize, a: &[f32], b: &[f32], scale: f32) -> Result<LowRank> {
        let rank = a.len().checked_div(inputs).unwrap_or(0);
        let fits = |len: usize, width: usize| rank.checked_mul(width) == Some(len);
        if rank == 0 || outputs == 0 || !fits(a.len(), inputs) || !fits(b.len(), outputs) {
            return Err(Error::LowRankShape { inputs, outputs, a: a.len(), b: b.len() });
        }
        let by_rank = (0..rank).flat_map(|r| b.iter().skip(r).step_by(rank).copied()).collect();
        Ok(LowRank { inputs, outputs, a: a.to_vec(), b: by_rank, scales: vec![scale; rank] })
    }

    /// The sum of this addition and `other`, which is added after it.
    ///
    /// # Panics
    /// When the two are not of one shape.
    #[must_use]
    pub fn plus(mut self, other: &LowRank) -> LowRank {
        assert_eq!((self.inputs, self.outputs), (other.inputs, other.outputs), "additions to one matrix");
        self.a.extend_from_slice(&other.a);
        self.b.extend_from_slice(&other.b);
        self.scales.extend_from_slice(&other.scales);
        self
    }

    /// Number of input features.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Number of output features.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Number of rows of `A`.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.scales.len()
    }

    /// All its numbers: the rows of `A` `[rank, inputs]`, the columns of `B` `[rank, outputs]`, one factor per rank.
    #[must_use]
    pub fn factors(&self) -> [&[f32]; 3] {
        [&self.a, &self.b, &self.scales]
    }

    /// Bytes of its numbers in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        ((self.a.len() + self.b.len() + self.scales.len()) * size_of::<f32>()) as u64
    }

    /// Whether it adds nothing to any output, because a factor has no number other than 0.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        [&self.a, &self.b, &self.scales].iter().any(|factor| factor.iter().all(|&v| v == 0.0))
    }

    /// Adds the outputs `columns` for the input `x` `[inputs]` to `y` `[columns.len()]`.
    ///
    /// # Panics
    /// When a length differs or `columns` leave the outputs.
    pub fn add_row(&self, x: &[f32], columns: Range<usize>, y: &mut [f32]) {
        let factors = self.a.chunks_exact(self.inputs).zip(self.b.chunks_exact(self.outputs)).zip(&self.scales);
        for ((a, b), scale) in factors {
            axpy_f32(scale * dot_f32(a, x), &b[columns.clone()], y);
        }
    }

    /// Writes `s (A x)` for the input `x` `[inputs]` to `out` `[rank]`.
    ///
    /// # Panics
    /// When a length differs.
    pub fn ranks(&self, x: &[f32], out: &mut [f32]) {
        assert_eq!(out.len(), self.rank(), "one number per rank");
        for ((out, a), scale) in out.iter_mut().zip(self.a.chunks_exact(self.inputs)).zip(&self.scales) {
            *out = scale * dot_f32(a, x);
        }
    }

    /// As [`LowRank::add_row`], for an input whose [`LowRank::ranks`] are known: for outputs that are computed piece by piece.
    ///
    /// # Panics
    /// When a length differs or `columns` leave the outputs.
    pub fn add_ranks(&self, ranks: &[f32], columns: Range<usize>, y: &mut [f32]) {
        assert_eq!(ranks.len(), self.rank(), "one number per rank");
        for (rank, b) in ranks.iter().zip(self.b.chunks_exact(self.outputs)) {
            axpy_f32(*rank, &b[columns.clone()], y);
        }
    }

    /// Adds the outputs for all rows of `x` `[n, inputs]` to `y` `[n, outputs]`.
    ///
    /// # Panics
    /// When a width differs, or `x` holds codes only.
    pub fn add(&self, pool: &Pool, x: &ActivationBuffer, y: &mut [f32]) {
        pool.chunks_mut(y, self.outputs, |t, row| self.add_row(x.row(t), 0..self.outputs, row));
    }
}
