//! The codes and scales of one row of a matrix, for a Hessian and a target that all its rows share.
//!
//! ```text
//! minimise   q H q' - 2 c q'      over   q = s_b t_j   in block b of B columns,   t_j in {-1, 0, 1}
//!
//! starts   GPTQ at 0.8 .. 1.2 times the scale of weighted least squares; the best is kept       factor.rs
//! blocks   one after the other, the others fixed: the search of search.rs     until no block changes
//! scales   of all blocks together: A s = d,  A_ab = t_a' H t_b,  d_a = t_a' c
//! ```
//!
//! **Invariant:** a row's result depends on its own target and weights and on the shared Hessian alone.

use half::f16;
use moe_runtime::SplitMix64;
use ternary_core::{Rounding, quantize_block, stored_scale};
use tl_kernels::Pool;
use tl_kernels::dense::axpy_f32;

use super::factor::Factor;
use super::quadratic::Quadratic;
use super::row_matrix::Scratch;
use super::search::{BlockProblem, Effort};
use super::steps::{Step, Steps};
use crate::policy::ScaleGrid;

/// Most rounds over the blocks of a row.
const ROUNDS: usize = 6;
/// Rounds behind the first, which start close to an optimum, have one of this many kicks. With as many as the first, a row took 1.7
/// times as long and its error was no lower (0.0365 and 0.0364, the mean of six rows of four blocks).
const LATER_KICKS: usize = 5;

/// The codes and scales of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TernaryRow {
    /// The codes of all columns, `[n]`.
    pub(super) trits: Vec<i8>,
    /// The scale of each block of columns.
    pub(super) scales: Vec<f16>,
}

impl TernaryRow {
    /// The values of the row, `[n]`.
    pub(super) fn write_values(&self, out: &mut [f32]) {
        let block = self.trits.len() / self.scales.len().max(1);
        let blocks = out.chunks_exact_mut(block).zip(self.trits.chunks_exact(block)).zip(&self.scales);
        for ((out, trits), scale) in blocks {
            let scale = scale.to_f32();
            out.iter_mut().zip(trits).for_each(|(value, &trit)| *value = f32::from(trit) * scale);
        }
    }
}

/// Solves rows of blocks of `B` columns for one Hessian.
#[derive(Debug)]
pub(super) struct RowSolver<'a, const B: usize> {
    quadratic: &'a Quadratic,
    steps: &'a Steps,
    effort: Effort,
    /// Multiples of the least-squares scale that rows are started from.
    scales: &'static [f64],
}

impl<'a, const B: usize> RowSolver<'a, B> {
    /// A solver that starts from these multiples of the scale.
    ///
    /// # Panics
    /// If the forms are of blocks of another length.
    pub(super) fn new(quadratic: &'a Quadratic, steps: &'a Steps, effort: Effort, scale_grid: ScaleGrid) -> Self {
        assert_eq!(quadratic.block, B, "columns of a block");
        let effort = Effort {
            sweeps: if steps.has(Step::Descent) { effort.sweeps } else { 0 },
            kicks: if steps.has(Step::Descent) && steps.has(Step::Kicks) { effort.kicks } else { 0 },
        };
        let scale_grid = if steps.has(Step::Starts) { scale_grid } else { ScaleGrid::One };
        Self { quadratic, steps, effort, scales: scale_grid.multiples() }
    }

    /// The rows of least error for some targets `c`, each `[n]` and one behind the other; `weights` are the teacher's
    /// rows and `seeds` start the kicks. `None` for a row whose target is 0 or not finite, and for all when H is singular: such
    /// a row is as good as any.
    pub(super) fn solve(&self, targets: &[f32], weights: &[f32], seeds: &[u64]) -> Vec<Option<TernaryRow>> {
        let mut solved = vec![None; seeds.len()];
        let Some(factor) = &self.quadratic.factor else { return solved };
        let n = self.quadratic.n;
        let mut wanted = factor.solve(targets);
        let mut tasks = Vec::with_capacity(seeds.len());
        for (i, &seed) in seeds.iter().enumerate() {
            let range = i * n..(i + 1) * n;
            if wanted[range.clone()].iter().all(|w| w.is_finite()) {
                wanted.copy_within(range.clone(), tasks.len() * n);
                tasks.push(Task { row: i, target: &targets[range.clone()], weights: &weights[range], seed });
            }
        }
        wanted.truncate(tasks.len() * n);
        let mut rows = self.best_starts(factor, &wanted, &tasks);
        self.multiply(&mut rows);
        for (task, mut row) in tasks.iter().zip(rows) {
            solved[task.row] = self.finish(task, &mut row);
        }
        solved
    }

    /// Improves a start, and gives its scales the values that a file stores.
    fn finish(&self, task: &Task<'_>, row: &mut Row) -> Option<TernaryRow> {
        if !self.solve_scales(task.target, row).is_finite() {
            return None;
        }
        self.improve(task.target, row, &mut SplitMix64::new(task.seed));
        let scales: Vec<f16> = row.scales.iter().map(|&scale| stored_scale(scale)).collect();
        let used = scales.iter().any(|scale| *scale > f16::ZERO);
        used.then(|| TernaryRow { trits: std::mem::take(&mut row.trits), scales })
    }

    /// Codes for the weights `wanted` that the targets ask for: of the starts at each multiple of the scale of least squares,
    /// the one of least error at its best scale.
    fn best_starts(&self, factor: &Factor, wanted: &[f32], tasks: &[Task<'_>]) -> Vec<Row> {
        let (n, ways) = (self.quadratic.n, self.scales.len());
        let mut starts: Vec<Row> = Vec::with_capacity(tasks.len() * ways);
        for (wanted, task) in wanted.chunks_exact(n).zip(tasks) {
            let plain = self.least_squares(wanted, task.weights);
            starts.extend(self.scales.iter().map(|multiple| plain.scaled(*multiple)));
        }
        let propagates = self.steps.has(Step::Propagation);
        let errors = factor.propagate(wanted, ways, |item, column, value| {
            let value = if propagates { value } else { wanted[item / ways * n + column] };
            let Row { trits, scales, .. } = &mut starts[item];
            let scale = scales[column / B] as f32;
            let trit = if scale > 0.0 { (value / scale).clamp(-1.0, 1.0).round() } else { 0.0 };
            trits[column] = trit as i8;
            trit * scale
        });
        let mut starts = starts.into_iter();
        let rows = wanted.chunks_exact(n).zip(tasks).zip(errors.chunks_exact(ways));
        rows.map(|((wanted, task), errors)| {
            let ways: Vec<Row> = starts.by_ref().take(ways).collect();
            let left = ways.iter().zip(errors).map(|(row, error)| self.left(task.target, wanted, row, *error));
            let best = left.enumerate().filter(|(_, left)| left.is_finite()).min_by(|(_, a), (_, b)| a.total_cmp(b));
            ways.into_iter().nth(best.map_or(0, |(way, _)| way)).expect("there is a multiple of the scale")
        })
        .collect()
    }

    /// `q H q' - 2 c q'` of a row whose distance to the solution `wanted` has the square `error` under H: at its own
    /// scales or, where these are solved for later, at the best multiple of them.
    fn left(&self, target: &[f32], wanted: &[f32], row: &Row, error: f64) -> f64 {
        let of_block = |(trits, target): (&[i8], &[f32])| -> f64 {
            trits.iter().zip(target).map(|(&t, &c)| f64::from(t) * f64::from(c)).sum()
        };
        let blocks = row.trits.chunks_exact(B).zip(target.chunks_exact(B)).map(of_block);
        let shared: f64 = blocks.zip(&row.scales).map(|(sum, scale)| scale * sum).sum();
        let whole: f64 = wanted.iter().zip(target).map(|(&w, &c)| f64::from(w) * f64::from(c)).sum();
        // (w - q) H (w - q)' = w c' - 2 q c' + q H q'
        let own = error - whole + 2.0 * shared;
        if !self.steps.has(Step::JointScales) {
            own - 2.0 * shared
        } else if own > 0.0 && shared > 0.0 {
            -shared * shared / own
        } else {
            0.0
        }
    }

    /// The codes and scales of weighted least squares.
    fn least_squares(&self, wanted: &[f32], weights: &[f32]) -> Row {
        let mut trits = vec![0i8; wanted.len()];
        let mut scales = Vec::with_capacity(wanted.len() / B);
        for (b, trits) in trits.as_chunks_mut::<B>().0.iter_mut().enumerate() {
            let at = b * B;
            let values: [f32; B] = std::array::from_fn(|i| wanted[at + i]);
            let importance: [f32; B] = std::array::from_fn(|i| self.quadratic.diagonal[at + i]);
            let scale = quantize_block(Rounding::LeastSquares, &values, Some(&importance), trits);
            let scale = if scale.is_finite() { f64::from(scale.to_f32()) } else { mean_magnitude(&weights[at..][..B]) };
            scales.push(scale);
        }
        Row { trits, scales, products: Vec::new() }
    }

    /// Computes the products of rows: the Hessian is read once for all of them.
    fn multiply(&self, rows: &mut [Row]) {
        let (n, blocks, mut scratch) = (self.quadratic.n, self.quadratic.n / B, Scratch::default());
        rows.iter_mut().for_each(|row| row.products = vec![0.0; blocks * n]);
        for b in 0..blocks {
            let codes = |row: usize| &rows[row].trits[b * B..(b + 1) * B];
            let products = self.quadratic.multiply(&mut scratch, b, rows.len(), codes);
            for (row, product) in rows.iter_mut().zip(products.chunks_exact(n)) {
                row.products[b * n..][..n].copy_from_slice(product);
            }
        }
    }

    /// Improves codes and scales, block by block, until no block changes.
    fn improve(&self, target: &[f32], row: &mut Row, rng: &mut SplitMix64) {
        if self.effort.sweeps == 0 {
            return;
        }
        for round in 0..ROUNDS {
            let kicks = if round == 0 { self.effort.kicks } else { self.effort.kicks / LATER_KICKS };
            let mut changed = false;
            for b in 0..row.scales.len() {
                changed |= self.improve_block(target, row, b, Effort { kicks, ..self.effort }, rng);
            }
            self.solve_scales(target, row);
            if !changed || row.scales.len() == 1 {
                break;
            }
        }
    }

    /// Searches the codes and the scale of block `b` with all others fixed; whether any code changed.
    fn improve_block(&self, target: &[f32], row: &mut Row, b: usize, effort: Effort, rng: &mut SplitMix64) -> bool {
        let (n, columns) = (self.quadratic.n, b * B..(b + 1) * B);
        // The part of the target that the other blocks leave to this one.
        let mut rest: [f32; B] = std::array::from_fn(|i| target[columns.start + i]);
        for (a, product) in row.products.chunks_exact(n).enumerate().filter(|(a, _)| *a != b) {
            axpy_f32(-row.scales[a] as f32, &product[columns.clone()], &mut rest);
        }
        let start: [i8; B] = std::array::from_fn(|i| row.trits[columns.start + i]);
        let diagonal = self.quadratic.diagonal[columns.clone()].first_chunk().expect("a row is whole blocks");
        let problem = BlockProblem { hessian: self.quadratic.diagonal_block(b), diagonal, target: &rest };
        let found = problem.search(&start, effort, rng);
        let product = &mut row.products[b * n..][..n];
        let trits = found.trits();
        for (i, (&new, &old)) in trits.iter().zip(&start).enumerate() {
            self.quadratic.add_column(product, columns.start + i, new - old);
        }
        row.scales[b] = found.scale();
        row.trits[columns].copy_from_slice(&trits);
        trits != start
    }

    /// Solves for the scales of all blocks together and keeps them if they are positive and lower the error; the error
    /// of the row.
    fn solve_scales(&self, target: &[f32], row: &mut Row) -> f64 {
        let forms = Forms::new(target, row);
        let error = forms.error(&row.scales);
        if !self.steps.has(Step::JointScales) {
            return error;
        }
        let Some(scales) = forms.best_scales() else { return error };
        let solved = forms.error(&scales);
        if solved > error {
            return error;
        }
        row.scales = scales;
        solved
    }
}

/// A row to solve for.
struct Task<'a> {
    /// Its place among those that are solved together.
    row: usize,
    target: &'a [f32],
    /// The teacher's row, from whose size a block gets its scale where least squares gives none.
    weights: &'a [f32],
    seed: u64,
}

/// A row in the making.
#[derive(Clone, Debug)]
struct Row {
    trits: Vec<i8>,
    scales: Vec<f64>,
    /// The products `H t_b` of each block's codes, `[blocks, n]`: changed codes cost one column of H each, and changed
    /// scales cost nothing.
    products: Vec<f32>,
}

impl Row {
    /// The same codes with multiples of their scales.
    fn scaled(&self, multiple: f64) -> Self {
        Self { scales: self.scales.iter().map(|scale| scale * multiple).collect(), ..self.clone() }
    }
}

/// The error of a row as a function of its scales: `s A s' - 2 d s'`.
struct Forms {
    /// `A_ab = t_a' H t_b`, `[blocks, blocks]`.
    matrix: Vec<f64>,
    /// `d_a = t_a' c`, `[blocks]`.
    moments: Vec<f64>,
}

impl Forms {
    fn new(target: &[f32], row: &Row) -> Self {
        let block = row.trits.len() / row.scales.len().max(1);
        let of_blocks = |values: &[f32]| -> Vec<f64> {
            let blocks = values.chunks_exact(block).zip(row.trits.chunks_exact(block));
            blocks.map(|(v, t)| v.iter().zip(t).map(|(&v, &t)| f64::from(v) * f64::from(t)).sum()).collect()
        };
        let matrix = row.products.chunks_exact(row.trits.len()).flat_map(of_blocks).collect();
        Self { matrix, moments: of_blocks(target) }
    }

    fn error(&self, scales: &[f64]) -> f64 {
        let rows = self.matrix.chunks_exact(scales.len()).zip(&self.moments);
        rows.zip(scales).map(|((row, moment), scale)| scale * (dot(row, scales) - 2.0 * moment)).sum()
    }

    /// The scales of least error; `None` unless they are positive, or 0 for blocks of zeros.
    fn best_scales(&self) -> Option<Vec<f64>> {
        let blocks = self.moments.len();
        let (mut matrix, mut moments) = (self.matrix.clone(), self.moments.clone());
        let zero: Vec<bool> = (0..blocks).map(|a| self.matrix[a * blocks + a] <= 0.0).collect();
        for a in (0..blocks).filter(|&a| zero[a]) {
            // A block of zeros takes no part: its row and column are 0, and its scale stays 0.
            (matrix[a * blocks + a], moments[a]) = (1.0, 0.0);
        }
        let moments: Vec<f32> = moments.iter().map(|&m| m as f32).collect();
        let scales = Factor::new(&Pool::serial(), &matrix, (0..blocks).collect())?.solve(&moments);
        let usable = |(scale, zero): (&f32, &bool)| scale.is_finite() && (*scale > 0.0 || (*zero && *scale == 0.0));
        scales.iter().zip(&zero).all(usable).then(|| scales.into_iter().map(f64::from).collect())
    }
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

fn mean_magnitude(weights: &[f32]) -> f64 {
    weights.iter().map(|w| f64::from(w.abs())).sum::<f64>() / weights.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptq::samples::Samples;
    use ternary_core::BLOCK;

    /// Two blocks, whose inputs share factors.
    const N: usize = 2 * BLOCK;

    /// The mean error of the rows without `left_out`, as a share of the length of their outputs.
    fn error<const B: usize>(rows: &[Samples], left_out: &[Step]) -> f64 {
        let (steps, effort) = (Steps::without(left_out), Effort { sweeps: 3, kicks: 10 });
        let errors = rows.iter().map(|samples| {
            let quadratic = Quadratic::new(&Pool::serial(), &samples.hessian, N, B, &steps).unwrap();
            let solver = RowSolver::<B>::new(&quadratic, &steps, effort, ScaleGrid::Five);
            let row = solver.solve(&samples.target(), &samples.weights, &[0])[0].clone().unwrap();
            let mut q = vec![0.0; N];
            row.write_values(&mut q);
            let w: Vec<f64> = samples.weights.iter().map(|&w| f64::from(w)).collect();
            let e: Vec<f64> = w.iter().zip(&q).map(|(w, &q)| w - f64::from(q)).collect();
            let length2 = |v: &[f64]| samples.hessian.chunks_exact(N).zip(v).map(|(h, x)| x * dot(h, v)).sum::<f64>();
            length2(&e) / length2(&w)
        });
        errors.sum::<f64>() / rows.len() as f64
    }

    #[test]
    fn every_step_lowers_the_error_of_rows_of_two_blocks() {
        use Step::{ActivationOrder, Descent, JointScales, Kicks, Propagation, Starts};
        // Later steps make up for most of an earlier one, so each is left out together with those that follow it.
        let ladder: [(&str, Vec<Step>, f64); 7] = [
            ("nothing", vec![Propagation, ActivationOrder, JointScales, Starts, Descent], 1.0),
            ("propagation", vec![ActivationOrder, JointScales, Starts, Descent], 0.75),
            ("activation order", vec![JointScales, Starts, Descent], 0.98),
            ("joint scales", vec![Starts, Descent], 0.998),
            ("descent", vec![Starts, Kicks], 0.95),
            ("starts", vec![Kicks], 0.9999),
            ("kicks", vec![], 0.999),
        ];
        let rows: Vec<Samples> = (0..3).map(|seed| Samples::new(N, seed)).collect();
        let mut before = f64::INFINITY;
        for (step, left_out, share) in ladder {
            let error = error::<BLOCK>(&rows, &left_out);
            assert!(error < share * before, "{step}: {error} after {before}");
            before = error;
        }
    }

    #[test]
    fn short_blocks_leave_less_error_and_gain_by_the_search_too() {
        let rows: Vec<Samples> = (0..2).map(|seed| Samples::new(N, seed)).collect();
        let (long, short) = (error::<BLOCK>(&rows, &[]), error::<64>(&rows, &[]));
        assert!(short < long, "{short} with blocks of 64, {long} with blocks of 256");
        assert!(short < 0.95 * error::<64>(&rows, &[Step::Descent, Step::Starts]));
    }

    #[test]
    fn a_singular_hessian_and_an_empty_target_give_no_row() {
        let samples = Samples::new(N, 9);
        let steps = Steps::default();
        let solve = |hessian: &[f64], target: &[f32]| {
            let quadratic = Quadratic::new(&Pool::serial(), hessian, N, BLOCK, &steps).unwrap();
            let effort = Effort { sweeps: 2, kicks: 2 };
            RowSolver::<BLOCK>::new(&quadratic, &steps, effort, ScaleGrid::Five).solve(target, &samples.weights, &[0])
        };
        assert_eq!(solve(&vec![0.0; N * N], &samples.target()), [None]);
        assert_eq!(solve(&vec![1.0; N * N], &samples.target()), [None]);
        assert_eq!(solve(&samples.hessian, &[0.0; N]), [None]);
        assert_eq!(solve(&samples.hessian, &[f32::NAN; N]), [None]);
    }

    #[test]
    fn a_row_is_the_same_alone_and_beside_others_that_have_no_solution() {
        let samples = Samples::new(N, 10);
        let steps = Steps::default();
        let quadratic = Quadratic::new(&Pool::serial(), &samples.hessian, N, BLOCK, &steps).unwrap();
        let solver = RowSolver::<BLOCK>::new(&quadratic, &steps, Effort { sweeps: 2, kicks: 2 }, ScaleGrid::Five);
        let alone = solver.solve(&samples.target(), &samples.weights, &[3]);
        let targets = [&[f32::INFINITY; N], &samples.target()[..], &[0.0; N], &samples.target()].concat();
        let all = solver.solve(&targets, &samples.weights.repeat(4), &[1, 3, 5, 3]);
        assert!(alone[0].is_some() && all == [None, alone[0].clone(), None, alone[0].clone()]);
    }
}
