//! The factor `H = U D U'` of a Hessian, unit upper triangular, and what GPTQ computes with it.
//!
//! With `e = w - q` the error `e'He` is the sum over k of `d_k (e_k + sum_{j<k} u_jk e_j)^2`. Columns are rounded in
//! ascending order, and each one rounds its weight plus what the earlier errors leave to it, so that its term depends on
//! its own rounding alone. This is GPTQ (arXiv 2210.17323), in the form of LDLQ (arXiv 2307.13304, section 4), which
//! needs no inverse.
//!
//! **Invariant:** sums are F64 in an order that depends on the sizes alone.

use tl_kernels::Pool;

/// Fewest rows that are worth a thread.
const MIN_ROWS: usize = 128;

/// The factor of a positive definite matrix whose rows and columns were put into an order.
#[derive(Debug)]
pub(super) struct Factor {
    /// Position k of the factor is this column of the matrix.
    order: Vec<usize>,
    /// Row k holds `u_jk` for j < k, `[n, n]`.
    unit: Vec<f64>,
    /// The weight `d_k` of each position in the error, `[n]`.
    d: Vec<f64>,
}

impl Factor {
    /// Factors `matrix` `[n, n]` with its columns in `order`; `None` when it is not positive definite.
    pub(super) fn new(pool: &Pool, matrix: &[f64], order: Vec<usize>) -> Option<Self> {
        let n = order.len();
        let mut a = vec![0.0; n * n];
        for (row, &i) in a.chunks_exact_mut(n).zip(&order) {
            for (value, &j) in row.iter_mut().zip(&order) {
                *value = matrix[i * n + j];
            }
        }
        let mut d = vec![0.0; n];
        for k in (0..n).rev() {
            let (above, row) = a.split_at_mut(k * n);
            let row = &mut row[..n];
            d[k] = row[k];
            if !(d[k] > 0.0 && d[k].is_finite()) {
                return None;
            }
            let inverse = 1.0 / d[k];
            row[..k].iter_mut().for_each(|u| *u *= inverse);
            let (row, pivot) = (&*row, d[k]);
            let rows_per_task = k.div_ceil(pool.threads()).max(MIN_ROWS);
            pool.chunks_mut(above, rows_per_task * n, |task, rows| {
                for (i, upper) in (task * rows_per_task..).zip(rows.chunks_exact_mut(n)) {
                    let factor = row[i] * pivot;
                    for (value, u) in upper[..=i].iter_mut().zip(&row[..=i]) {
                        *value -= factor * u;
                    }
                }
            });
        }
        Some(Self { order, unit: a, d })
    }

    fn row(&self, k: usize) -> &[f64] {
        &self.unit[k * self.d.len()..][..k]
    }

    /// The solution of `H w = c`, `[n]`.
    pub(super) fn solve(&self, c: &[f32]) -> Vec<f64> {
        let mut w: Vec<f64> = self.order.iter().map(|&i| f64::from(c[i])).collect();
        for k in (0..w.len()).rev() {
            let (head, tail) = w.split_at_mut(k);
            for (value, u) in head.iter_mut().zip(self.row(k)) {
                *value -= u * tail[0];
            }
        }
        w.iter_mut().zip(&self.d).for_each(|(w, d)| *w /= d);
        for k in 0..w.len() {
            w[k] -= dot(&w[..k], self.row(k));
        }
        let mut solution = vec![0.0; w.len()];
        for (value, &i) in w.iter().zip(&self.order) {
            solution[i] = *value;
        }
        solution
    }

    /// Rounds `weights` `[n]` one by one to `round(column, value)`, each with the errors of those before it.
    pub(super) fn propagate(&self, weights: &[f64], mut round: impl FnMut(usize, f64) -> f64) {
        let mut errors = vec![0.0; weights.len()];
        for (k, &column) in self.order.iter().enumerate() {
            let value = weights[column] + dot(&errors[..k], self.row(k));
            errors[k] = weights[column] - round(column, value);
        }
    }
}

/// The dot product in eight partial sums.
pub(super) fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    let ((xs, x_rest), (ys, y_rest)) = (x.as_chunks::<8>(), y.as_chunks::<8>());
    for (x, y) in xs.iter().zip(ys) {
        for i in 0..8 {
            lanes[i] += x[i] * y[i];
        }
    }
    let rest: f64 = x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum();
    ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7])) + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptq::samples::Samples;

    const N: usize = 24;

    #[test]
    fn solutions_solve_the_equations_in_any_order() {
        let samples = Samples::new(N, 1);
        let hessian = &samples.hessian;
        let target: Vec<f32> = (0..N).map(|i| (i as f32 - 7.0) / 5.0).collect();
        for order in [(0..N).collect::<Vec<_>>(), (0..N).rev().collect()] {
            let w = Factor::new(&Pool::serial(), hessian, order).unwrap().solve(&target);
            for (row, target) in hessian.chunks_exact(N).zip(&target) {
                assert!((dot(row, &w) - f64::from(*target)).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_has_no_factor() {
        let mut hessian = Samples::new(N, 2).hessian;
        hessian[5 * N + 5] = -1.0;
        assert!(Factor::new(&Pool::serial(), &hessian, (0..N).collect()).is_none());
        assert!(Factor::new(&Pool::serial(), &[0.0; 4], vec![0, 1]).is_none());
        assert!(Factor::new(&Pool::serial(), &[f64::NAN; 4], vec![0, 1]).is_none());
    }

    /// With propagation, the error of a row is the sum of what each column's own rounding leaves.
    #[test]
    fn each_column_answers_for_its_own_rounding() {
        let hessian = Samples::new(N, 3).hessian;
        let factor = Factor::new(&Pool::serial(), &hessian, (0..N).collect()).unwrap();
        let weights: Vec<f64> = (0..N).map(|i| f64::from(i as u32) / 7.0 - 1.5).collect();
        let (mut rounded, mut own) = (vec![0.0; N], 0.0);
        factor.propagate(&weights, |column, value| {
            rounded[column] = value.round();
            own += factor.d[column] * (value - value.round()).powi(2);
            rounded[column]
        });
        let errors: Vec<f64> = weights.iter().zip(&rounded).map(|(w, q)| w - q).collect();
        let error: f64 = hessian.chunks_exact(N).zip(&errors).map(|(row, e)| e * dot(row, &errors)).sum();
        assert!((error - own).abs() < 1e-9 * error, "{error} is not {own}");
    }
}
