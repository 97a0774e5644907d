//! The factor `H = U D U'` of a Hessian, unit upper triangular, and what GPTQ computes with it.
//!
//! With `e = w - q` the error `e'He` is the sum over k of `d_k (e_k + sum_{j<k} u_jk e_j)^2`. Columns are rounded in
//! ascending order, and each one rounds its weight plus what the earlier errors leave to it, so that its term depends on
//! its own rounding alone. This is GPTQ (arXiv 2210.17323), in the form of LDLQ (arXiv 2307.13304, section 4), which
//! needs no inverse.
//!
//! The factor is computed in F64 and kept in F32: an error of a solution lies where the form is flat, and costs little.
//!
//! **Invariant:** sums run in an order that depends on the sizes alone.

use tl_kernels::Pool;
use tl_kernels::dense::{axpy_f32, dot_f32};

/// Fewest rows that are worth a thread.
const MIN_ROWS: usize = 128;

/// The factor of a positive definite matrix whose rows and columns were put into an order.
#[derive(Debug)]
pub(crate) struct Factor {
    /// Position k of the factor is this column of the matrix.
    order: Vec<usize>,
    /// Row k holds `u_jk` for j < k, `[n, n]`.
    unit: Vec<f32>,
    /// The weight `d_k` of each position in the error, `[n]`.
    d: Vec<f32>,
}

impl Factor {
    /// Factors `matrix` `[n, n]` with its columns in `order`; `None` when it is not positive definite.
    pub(crate) fn new(pool: &Pool, matrix: &[f64], order: Vec<usize>) -> Option<Self> {
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
        let narrow = |values: &[f64]| values.iter().map(|&v| v as f32).collect();
        Some(Self { order, unit: narrow(&a), d: narrow(&d) })
    }

    fn row(&self, k: usize) -> &[f32] {
        &self.unit[k * self.d.len()..][..k]
    }

    /// The solutions of `H w = c` for some targets, each `[n]`, one behind the other.
    ///
    /// A row of the factor is read once for all of them.
    pub(crate) fn solve(&self, targets: &[f32]) -> Vec<f32> {
        let n = self.d.len();
        let mut solved: Vec<f32> = targets.chunks_exact(n).flat_map(|c| self.order.iter().map(|&i| c[i])).collect();
        for k in (0..n).rev() {
            for w in solved.chunks_exact_mut(n) {
                let (head, tail) = w.split_at_mut(k);
                axpy_f32(-tail[0], self.row(k), head);
            }
        }
        for w in solved.chunks_exact_mut(n) {
            w.iter_mut().zip(&self.d).for_each(|(w, d)| *w /= d);
        }
        for k in 0..n {
            for w in solved.chunks_exact_mut(n) {
                w[k] -= dot_f32(&w[..k], self.row(k));
            }
        }
        let mut solutions = vec![0.0; solved.len()];
        for (solution, w) in solutions.chunks_exact_mut(n).zip(solved.chunks_exact(n)) {
            for (value, &i) in w.iter().zip(&self.order) {
                solution[i] = *value;
            }
        }
        solutions
    }

    /// Rounds `weights` `[n]` one by one, each with the errors of those before it, in several ways at once:
    /// `round(way, column, value)` is the value that `way` gives.
    ///
    /// A row of the factor is read once for all ways.
    pub(super) fn propagate(&self, weights: &[f32], ways: usize, mut round: impl FnMut(usize, usize, f32) -> f32) {
        let n = weights.len();
        let mut errors = vec![0.0; ways * n];
        for (k, &column) in self.order.iter().enumerate() {
            for (way, errors) in errors.chunks_exact_mut(n).enumerate() {
                let value = weights[column] + dot_f32(&errors[..k], self.row(k));
                errors[k] = weights[column] - round(way, column, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptq::samples::Samples;

    const N: usize = 24;

    fn dot(x: &[f64], y: &[f64]) -> f64 {
        x.iter().zip(y).map(|(x, y)| x * y).sum()
    }

    #[test]
    fn solutions_solve_the_equations_in_any_order() {
        let samples = Samples::new(N, 1);
        let hessian = &samples.hessian;
        let target: Vec<f32> = (0..N).map(|i| (i as f32 - 7.0) / 5.0).collect();
        for order in [(0..N).collect::<Vec<_>>(), (0..N).rev().collect()] {
            let twice = [&target[..], &target[..]].concat();
            let solutions = Factor::new(&Pool::serial(), hessian, order).unwrap().solve(&twice);
            for w in solutions.chunks_exact(N) {
                for (row, target) in hessian.chunks_exact(N).zip(&target) {
                    let product: f64 = row.iter().zip(w).map(|(h, &w)| h * f64::from(w)).sum();
                    assert!((product - f64::from(*target)).abs() < 1e-5, "{product} is not {target}");
                }
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
        let weights: Vec<f32> = (0..N).map(|i| i as f32 / 7.0 - 1.5).collect();
        let (mut rounded, mut own) = (vec![0.0; N], 0.0);
        factor.propagate(&weights, 1, |_, column, value| {
            rounded[column] = value.round();
            own += f64::from(factor.d[column]) * f64::from(value - value.round()).powi(2);
            rounded[column]
        });
        let errors: Vec<f64> = weights.iter().zip(&rounded).map(|(w, q)| f64::from(w - q)).collect();
        let error: f64 = hessian.chunks_exact(N).zip(&errors).map(|(row, e)| e * dot(row, &errors)).sum();
        assert!((error - own).abs() < 1e-5 * error, "{error} is not {own}");
    }
}
