//! Products of F32 matrices and of their transposes, on the dense kernels of the runtime.
//!
//! The kernels multiply the rows of two matrices with each other, so an operand that lies the other way is copied first: a copy reads
//! each number once or twice, the product uses it many times. Each thread keeps the buffers of its largest product for the next ones.
//!
//! **Invariant:** the numbers depend neither on the number of threads nor on the instruction set: every sum has 16 partial
//! sums and one order, as everywhere in the runtime.

use std::cell::Cell;
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

    /// Some of the rows.
    ///
    /// # Panics
    /// When the matrix does not have them.
    #[must_use]
    pub fn rows(self, rows: Range<usize>) -> Self {
        self.t().columns(rows).t()
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
        if col_stride == 1 {
            let mut out = Vec::with_capacity(rows * cols);
            (0..rows).for_each(|r| out.extend_from_slice(&data[r * row_stride..][..cols]));
            return out;
        }
        // The rows lie side by side. Some of them at a time read whole cache lines.
        let mut out = vec![0.0; rows * cols];
        for (i, part) in out.chunks_mut(ROWS_AT_A_TIME * cols.max(1)).enumerate() {
            let n = part.len() / cols.max(1);
            for c in 0..cols {
                let values = &data[c * col_stride + i * ROWS_AT_A_TIME..][..n];
                values.iter().enumerate().for_each(|(r, value)| part[r * cols + c] = *value);
            }
        }
        out
    }

    /// Makes the rows the input of a product.
    fn copy_to(self, acts: &mut ActivationBuffer) {
        let Self { data, rows, cols, row_stride, col_stride } = self;
        match col_stride {
            1 => acts.fill(rows, cols, |r, row| row.copy_from_slice(&data[r * row_stride..][..cols])),
            _ => acts.set(&self.row_major(), rows, cols),
        }
    }
}

/// Rows of a transpose that are copied together: 64 bytes of each row of its source.
const ROWS_AT_A_TIME: usize = 16;

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
    if k == 0 {
        let rows = data.chunks_exact_mut(width).filter(|_| !adds);
        return rows.for_each(|row| row[columns.clone()].fill(0.0));
    }
    let right = Linear::from_f32(n, k, b.t().row_major()).expect("the shape is that of the numbers");
    let Buffers { mut left, mut product } = BUFFERS.take();
    a.copy_to(&mut left);
    if !adds && n == width {
        right.forward(pool, &left, data);
    } else {
        if product.len() < m * n {
            // The old one goes before the new one comes.
            drop(std::mem::take(&mut product));
            product = vec![0.0; m * n];
        }
        let product = &mut product[..m * n];
        right.forward(pool, &left, product);
        for (row, product) in data.chunks_exact_mut(width).zip(product.chunks_exact(n)) {
            let row = &mut row[columns.clone()];
            if adds {
                row.iter_mut().zip(product).for_each(|(sum, value)| *sum += value);
            } else {
                row.copy_from_slice(product);
            }
        }
    }
    BUFFERS.set(Buffers { left, product });
}

/// The left operand and the product, where that does not go to its place at once.
#[derive(Default)]
struct Buffers {
    left: ActivationBuffer,
    product: Vec<f32>,
}

thread_local! {
    // Taken while they are used: a product that starts another one on its thread leaves that one empty buffers.
    static BUFFERS: Cell<Buffers> = Cell::default();
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
