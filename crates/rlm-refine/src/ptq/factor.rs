//! The factor `H = U D U'` of a Hessian, unit upper triangular, and what GPTQ computes with it.
//!
//! With `e = w - q` the error `e'He` is the sum over k of `d_k (e_k + sum_{j<k} u_jk e_j)^2`. Columns are rounded in
//! ascending order, and each one rounds its weight plus what the earlier errors leave to it, so that its term depends on
//! its own rounding alone. This is GPTQ (arXiv 2210.17323), in the form of LDLQ (arXiv 2307.13304, section 4), which
//! needs no inverse.
//!
//! ```text
//!                 before           inner
//! panel     u_jk, j < start    u_jk, start <= j < k        k: 128 positions from `start` on
//! ```
//! Inside of a panel positions are computed one by one. One matrix product over all rows gives the part that earlier panels leave
//! to them, and reads the factor once for all rows.
//!
//! The factor is computed in F64 and kept in F32: an error of a solution lies where the form is flat, and costs little.
//!
//! **Invariant:** sums run in an order that depends on the sizes alone: a row's numbers depend neither on threads nor on the rows
//! beside it.

use tl_kernels::Pool;
use tl_kernels::dense::{axpy_f32, dot_f32};

use super::decompose::{PANEL, decompose};
use super::row_matrix::{RowMatrix, Scratch};

/// The factor of a positive definite matrix whose rows and columns were put into an order.
#[derive(Debug)]
pub(crate) struct Factor {
    /// Position k of the factor is this column of the matrix.
    order: Vec<usize>,
    panels: Vec<Panel>,
    /// The weight `d_k` of each position in the error, `[n]`.
    d: Vec<f32>,
}

/// The columns of U at some positions.
#[derive(Debug)]
struct Panel {
    start: usize,
    width: usize,
    /// Row k holds `u_jk` for the positions j of the panel, of which j < k count, `[width, width]`.
    inner: Vec<f32>,
    /// `u_jk` for j < start, `[width, start]` and `[start, width]`; `None` for the first panel.
    before: Option<[RowMatrix; 2]>,
}

impl Panel {
    fn new(start: usize, width: usize, rows: &[f64], n: usize) -> Option<Self> {
        let part = |k: usize, from: usize, to: usize| rows[k * n + from..k * n + to].iter().map(|&u| u as f32);
        let inner = (0..width).flat_map(|k| part(k, start, start + width)).collect();
        let before = if start == 0 {
            None
        } else {
            let across = (0..start).flat_map(|j| (0..width).map(move |k| rows[k * n + j] as f32));
            let rows = (0..width).flat_map(|k| part(k, 0, start));
            Some([RowMatrix::new(width, start, rows).ok()?, RowMatrix::new(start, width, across).ok()?])
        };
        Some(Self { start, width, inner, before })
    }

    /// The positions of the panel before its own position `k`.
    fn row(&self, k: usize) -> &[f32] {
        &self.inner[k * self.width..][..k]
    }

    /// `sum_{j < start} u_jk x_j` for the positions k of the panel and rows `x` `[_, n]`, as `[_, width]`; nothing for the
    /// first panel.
    fn left<'a>(&self, scratch: &'a mut Scratch, x: &[f32], n: usize) -> &'a [f32] {
        let Some([before, _]) = &self.before else { return &[] };
        before.multiply_here(scratch, x.len() / n, |i, row| row.copy_from_slice(&x[i * n..][..self.start]))
    }

    /// Subtracts from `w` `[_, n]` what its numbers at the panel's positions leave to those before the panel.
    fn subtract_above(&self, scratch: &mut Scratch, w: &mut [f32], n: usize) {
        let Some([_, above]) = &self.before else { return };
        let (start, width, rows) = (self.start, self.width, w.len() / n);
        let sums = above.multiply_here(scratch, rows, |i, row| row.copy_from_slice(&w[i * n + start..][..width]));
        for (w, sums) in w.chunks_exact_mut(n).zip(sums.chunks_exact(start)) {
            w.iter_mut().zip(sums).for_each(|(w, sum)| *w -= sum);
        }
    }
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
        let d = decompose(pool, &mut a, n)?;
        let starts = (0..n).step_by(PANEL);
        let panels = starts.map(|start| Panel::new(start, PANEL.min(n - start), &a[start * n..], n));
        Some(Self { panels: panels.collect::<Option<_>>()?, order, d: d.iter().map(|&d| d as f32).collect() })
    }

    /// The solutions of `H w = c` for some targets, each `[n]`, one behind the other.
    pub(crate) fn solve(&self, targets: &[f32]) -> Vec<f32> {
        let n = self.d.len();
        let mut scratch = Scratch::default();
        let mut solved: Vec<f32> = targets.chunks_exact(n).flat_map(|c| self.order.iter().map(|&i| c[i])).collect();
        for panel in self.panels.iter().rev() {
            for w in solved.chunks_exact_mut(n) {
                for k in (1..panel.width).rev() {
                    let (head, tail) = w[panel.start..].split_at_mut(k);
                    axpy_f32(-tail[0], panel.row(k), head);
                }
            }
            panel.subtract_above(&mut scratch, &mut solved, n);
        }
        for w in solved.chunks_exact_mut(n) {
            w.iter_mut().zip(&self.d).for_each(|(w, d)| *w /= d);
        }
        for panel in &self.panels {
            let left = panel.left(&mut scratch, &solved, n);
            for (i, w) in solved.chunks_exact_mut(n).enumerate() {
                for k in 0..panel.width {
                    let sum = left.get(i * panel.width + k).copied().unwrap_or(0.0);
                    let (head, tail) = w[panel.start..].split_at_mut(k);
                    tail[0] -= sum + dot_f32(head, panel.row(k));
                }
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

    /// Rounds rows of weights, each `[n]`, one by one, each weight with the errors of those before it, in several ways:
    /// `round(item, column, value)` is the value that way `item % ways` of row `item / ways` gives. Returns `e'He` of each item.
    pub(super) fn propagate(
        &self,
        weights: &[f32],
        ways: usize,
        mut round: impl FnMut(usize, usize, f32) -> f32,
    ) -> Vec<f64> {
        let n = self.d.len();
        let mut scratch = Scratch::default();
        let mut errors = vec![0.0; weights.len() * ways];
        let mut sums = vec![0.0; errors.len() / n.max(1)];
        for panel in &self.panels {
            let left = panel.left(&mut scratch, &errors, n);
            for (item, (errors, sum)) in errors.chunks_exact_mut(n).zip(&mut sums).enumerate() {
                let weights = &weights[item / ways * n..][..n];
                for k in 0..panel.width {
                    let (position, column) = (panel.start + k, self.order[panel.start + k]);
                    let earlier = left.get(item * panel.width + k).copied().unwrap_or(0.0);
                    let (head, tail) = errors[panel.start..].split_at_mut(k);
                    let value = weights[column] + (earlier + dot_f32(head, panel.row(k)));
                    let rounded = round(item, column, value);
                    tail[0] = weights[column] - rounded;
                    *sum += f64::from(self.d[position]) * f64::from(value - rounded).powi(2);
                }
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptq::samples::Samples;

    /// Three panels, the last of them narrow.
    const N: usize = 2 * PANEL + 24;

    fn dot(x: &[f64], y: &[f64]) -> f64 {
        x.iter().zip(y).map(|(x, y)| x * y).sum()
    }

    #[test]
    fn solutions_solve_the_equations_in_any_order_and_company() {
        let samples = Samples::new(N, 1);
        let hessian = &samples.hessian;
        let target: Vec<f32> = (0..N).map(|i| (i as f32 - 70.0) / 50.0).collect();
        for order in [(0..N).collect::<Vec<_>>(), (0..N).rev().collect()] {
            let twice = [&target[..], &target[..]].concat();
            let factor = Factor::new(&Pool::serial(), hessian, order).unwrap();
            let solutions = factor.solve(&twice);
            assert_eq!(solutions, factor.solve(&target).repeat(2), "rows do not depend on each other");
            let w: Vec<f64> = solutions[..N].iter().map(|&w| f64::from(w)).collect();
            for (row, target) in hessian.chunks_exact(N).zip(&target) {
                let product = dot(row, &w);
                assert!((product - f64::from(*target)).abs() < 1e-4, "{product} is not {target}");
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
        let weights: Vec<f32> = (0..2 * N).map(|i| i as f32 / 70.0 - 1.5).collect();
        let (steps, mut rounded) = ([0.5, 1.0], vec![vec![0.0; N]; 4]);
        let errors = factor.propagate(&weights, 2, |item, column, value| {
            rounded[item][column] = (value / steps[item % 2]).round() * steps[item % 2];
            rounded[item][column]
        });
        for (item, (own, rounded)) in errors.iter().zip(&rounded).enumerate() {
            let weights = &weights[item / 2 * N..][..N];
            let e: Vec<f64> = weights.iter().zip(rounded).map(|(w, q)| f64::from(w - q)).collect();
            let error: f64 = hessian.chunks_exact(N).zip(&e).map(|(row, x)| x * dot(row, &e)).sum();
            assert!((error - own).abs() < 1e-4 * error, "{error} is not {own}");
        }
        assert!(errors[0] < errors[1], "finer steps leave less");
    }
}
