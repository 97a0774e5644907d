//! Products of F32 matrices and of their transposes, on the dense kernels of the runtime.
//!
//! The kernels multiply the rows of two matrices with each other, so an operand that lies the other way is copied first: a copy reads
//! each number once, the product uses it many times.
//!
//! **Invariant:** the numbers depend neither on the number of threads nor on the instruction set: every sum has 16 partial
//! sums and one order, as everywhere in the runtime.

use std::ops::Range;

use tl_kernels::{ActivationBuffer, Linear, Pool};

/// A matrix `[rows, cols]` within a slice, or its transpose.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// The matrix `[rows, cols]` that `data` holds row by row.
    ///
    /// # Panics
    /// When `data` has another length.
    #[must_use]
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(Some(data.len()), rows.checked_mul(cols), "a matrix has rows x cols values");
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The same numbers with rows and columns exchanged.
    #[must_use]
    pub fn t(self) -> Self {
        let Self { data, rows, cols, row_stride, col_stride } = self;
        Self { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }

    /// Some of the columns.
    ///
    /// # Panics
    /// When the matrix does not have them.
    #[must_use]
    pub fn columns(self, columns: Range<usize>) -> Self {
        assert!(columns.start <= columns.end && columns.end <= self.cols, "the matrix has no such columns");
        let start = (columns.start * self.col_stride).min(self.data.len());
        Self { data: &self.data[start..], cols: columns.len(), ..self }
    }

    /// The numbers row by row.
    fn row_major(self) -> Vec<f32> {
        let Self { data, rows, cols, row_stride, col_stride } = self;
        let mut out = Vec::with_capacity(rows * cols);
        for r in 0..rows {
            let start = r * row_stride;
            if col_stride == 1 {
                out.extend_from_slice(&data[start..start + cols]);
            } else {
                out.extend(data[start..].iter().step_by(col_stride).take(cols));
            }
        }
        out
    }
}

/// The place of a product: some columns of a matrix that is `width` values wide.
#[derive(Debug)]
pub struct Out<'a> {
    data: &'a mut [f32],
    width: usize,
    columns: Range<usize>,
    /// Whether the product is added to the values there.
    adds: bool,
}

impl<'a> Out<'a> {
    /// Replaces a whole matrix with rows of `width` values.
    pub fn to(data: &'a mut [f32], width: usize) -> Self {
        Self { data, width, columns: 0..width, adds: false }
    }

    /// Adds to a whole matrix with rows of `width` values.
    pub fn onto(data: &'a mut [f32], width: usize) -> Self {
        Self { adds: true, ..Self::to(data, width) }
    }

    /// Writes only these columns.
    #[must_use]
    pub fn columns(self, columns: Range<usize>) -> Self {
        Self { columns, ..self }
    }
}

/// Computes `a b` for `a` `[m, k]` and `b` `[k, n]`.
///
/// # Panics
/// When the shapes do not fit each other.
pub fn multiply(pool: &Pool, out: Out<'_>, a: Mat<'_>, b: Mat<'_>) {
    let Out { data, width, columns, adds } = out;
    assert_eq!(data.len(), a.rows * width, "the output has a row per row of the left matrix");
    assert!(columns.end <= width && columns.len() == b.cols, "the output has a column per column of the right matrix");
    assert_eq!(a.cols, b.rows, "inner dimensions agree");
    if data.is_empty() || b.cols == 0 {
        return;
    }
    let (m, k, n) = (a.rows, a.cols, b.cols);
    let mut product = vec![0.0; m * n];
    if k > 0 {
        let right = Linear::from_f32(n, k, b.t().row_major()).expect("the shape is that of the numbers");
        let mut left = ActivationBuffer::new();
        left.set(&a.row_major(), m, k);
        right.forward(pool, &left, &mut product);
    }
    for (row, product) in data.chunks_exact_mut(width).zip(product.chunks_exact(n)) {
        let row = &mut row[columns.clone()];
        if adds {
            row.iter_mut().zip(product).for_each(|(sum, value)| *sum += value);
        } else {
            row.copy_from_slice(product);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::samples::Samples;

    #[test]
    fn products_equal_plain_loops_for_every_transpose_and_any_threads() {
        let mut samples = Samples::new(1);
        for (m, k, n) in [(1, 1, 1), (3, 5, 7), (65, 9, 4), (130, 33, 66), (2, 0, 3)] {
            let (a, b) = (samples.values(m * k), samples.values(k * n));
            let transposed = |x: &[f32], rows: usize, cols: usize| -> Vec<f32> {
                (0..rows * cols).map(|i| x[i % rows * cols + i / rows]).collect()
            };
            let (at, bt) = (transposed(&a, m, k), transposed(&b, k, n));
            let plain = |i: usize, j: usize| -> f32 {
                (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(b[l * n + j])).sum::<f64>() as f32
            };
            for a in [Mat::new(&a, m, k), Mat::new(&at, k, m).t()] {
                for b in [Mat::new(&b, k, n), Mat::new(&bt, n, k).t()] {
                    let (mut out, mut wide) = (vec![9.0; m * n], vec![1.0; m * (n + 3)]);
                    multiply(&Pool::serial(), Out::to(&mut out, n), a, b);
                    multiply(&Pool::new(3).unwrap(), Out::onto(&mut wide, n + 3).columns(2..2 + n), a, b);
                    for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                        assert!((out[i * n + j] - plain(i, j)).abs() < 1e-5, "{m} {k} {n}");
                        assert!((wide[i * (n + 3) + 2 + j] - 1.0 - out[i * n + j]).abs() < 1e-5);
                    }
                    assert!(wide.chunks(n + 3).all(|row| row[..2] == [1.0; 2] && row[n + 2] == 1.0));
                }
            }
        }
    }
}
