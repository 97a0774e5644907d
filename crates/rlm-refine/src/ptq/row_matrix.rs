//! Products with the rows of a matrix in F32.
//!
//! **Invariant:** every sum has the order of `ternary_core::dot16`: bits depend neither on threads, nor on the instruction set,
//! nor on how many rows are multiplied at once.

use ternary_core::Bytes;
use tl_kernels::{ActivationBuffer, DenseType, Linear, Pool};

use crate::error::Result;

/// A matrix `[rows, cols]` in F32.
#[derive(Debug)]
pub(crate) struct RowMatrix(Linear);

/// The operands of products on one thread, kept from one to the next.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    acts: ActivationBuffer,
    out: Vec<f32>,
}

impl RowMatrix {
    /// The matrix of `values`, row by row.
    ///
    /// # Errors
    /// A matrix without values.
    pub(crate) fn new(rows: usize, cols: usize, values: impl Iterator<Item = f32>) -> Result<Self> {
        let mut bytes = vec![0; 4 * rows * cols];
        for (bytes, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            *bytes = value.to_le_bytes();
        }
        Ok(Self(Linear::dense(DenseType::F32, rows, cols, Bytes::from(bytes)).map_err(moe_runtime::Error::from)?))
    }

    /// `x W'` for rows `x` `[_, cols]`, as `[_, rows]`.
    pub(crate) fn multiply(&self, pool: &Pool, x: &[f32]) -> Vec<f32> {
        let n = x.len() / self.0.cols();
        let mut acts = ActivationBuffer::new();
        acts.set(x, n, self.0.cols());
        let mut out = vec![0.0; n * self.0.rows()];
        if n > 0 {
            self.0.forward(pool, &acts, &mut out);
        }
        out
    }

    /// The same on the calling thread, for `n` rows that `write(i, row)` gives.
    pub(crate) fn multiply_here<'a>(
        &self,
        scratch: &'a mut Scratch,
        n: usize,
        write: impl FnMut(usize, &mut [f32]),
    ) -> &'a [f32] {
        let Scratch { acts, out } = scratch;
        acts.fill(n, self.0.cols(), write);
        out.clear();
        out.resize(n * self.0.rows(), 0.0);
        if n > 0 {
            self.0.forward(&Pool::serial(), acts, out);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_multiply_with_the_rows_of_the_matrix() {
        let matrix = RowMatrix::new(3, 2, [1.0, 0.0, 10.0, 1.0, 0.5, 0.0].into_iter()).unwrap();
        let x = [1.0, 2.0, 3.0, 4.0];
        let y = [1.0, 12.0, 0.5, 3.0, 34.0, 1.5];
        assert_eq!(matrix.multiply(&Pool::serial(), &x), y);
        let mut scratch = Scratch::default();
        for _ in 0..2 {
            let here = matrix.multiply_here(&mut scratch, 2, |i, row| row.copy_from_slice(&x[2 * i..][..2]));
            assert_eq!(here, y);
        }
        assert!(matrix.multiply(&Pool::serial(), &[]).is_empty());
        RowMatrix::new(0, 2, std::iter::empty()).unwrap_err();
    }
}
