//! The predictions that a loss compares a student's with: computed from a teacher's states, or known.

use tl_kernels::{ActivationBuffer, Pool};

use super::ops::loss::Target;
use crate::error::Result;

/// Gives the teacher's logits of some positions: the target of a position, by its number in the batch.
pub trait Targets {
    /// Calls `take` with the target of each position of `first..first + n` that has one, in order.
    ///
    /// # Errors
    /// Logits that cannot be computed or read.
    fn targets(&mut self, first: usize, n: usize, take: &mut dyn FnMut(usize, Target<'_>)) -> Result<()>;

    /// The factor of a position's loss, by which its gradient is multiplied. Reported sums are those without it.
    fn factor(&self, _position: usize) -> f32 {
        1.0
    }

    /// The teacher's scores of the experts of a layer, `[n, n_experts]`, where the student's are to come near them, and how often their
    /// divergence counts beside that of a prediction. Reported sums are those without it.
    fn scores(&self, _layer: usize) -> Option<(&[f32], f32)> {
        None
    }
}

/// Targets computed from a teacher's hidden states. Its head is decoded once, and kept as long as these.
#[derive(Debug)]
pub struct TeacherHidden<'a> {
    pub(super) pool: &'a Pool,
    pub(super) head: tl_kernels::Linear,
    /// Behind the last norm, `[n, hidden]`.
    pub(super) hidden: Vec<f32>,
}

impl TeacherHidden<'_> {
    /// The logits `[n, vocab]` of `n` positions from `first` on.
    #[must_use]
    pub fn logits(&self, first: usize, n: usize) -> Vec<f32> {
        let width = self.head.cols();
        let mut rows = ActivationBuffer::new();
        rows.set(&self.hidden[first * width..(first + n) * width], n, width);
        let mut logits = vec![0.0; n * self.head.rows()];
        self.head.forward(self.pool, &rows, &mut logits);
        logits
    }
}

impl Targets for TeacherHidden<'_> {
    fn targets(&mut self, first: usize, n: usize, take: &mut dyn FnMut(usize, Target<'_>)) -> Result<()> {
        let (logits, vocab) = (self.logits(first, n), self.head.rows());
        logits.chunks_exact(vocab.max(1)).enumerate().for_each(|(i, row)| take(first + i, Target::Full(row)));
        Ok(())
    }
}

/// Targets that are known: probabilities of each position's likeliest tokens.
#[derive(Clone, Debug, Default)]
pub struct SparseTargets {
    /// Per position, tokens and their probabilities.
    pub rows: Vec<(Vec<u32>, Vec<f32>)>,
}

impl Targets for SparseTargets {
    fn targets(&mut self, first: usize, n: usize, take: &mut dyn FnMut(usize, Target<'_>)) -> Result<()> {
        for (i, (tokens, probabilities)) in self.rows[first..first + n].iter().enumerate() {
            take(first + i, Target::Sparse { tokens, probabilities });
        }
        Ok(())
    }
}
