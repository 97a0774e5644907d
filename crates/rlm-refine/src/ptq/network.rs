//! The ternary matrices of one feed-forward network: gate and up first, then down on what they leave.
//!
//! ```text
//! gate, up   inputs: the normed residual stream           target: the teacher's gate and up on the teacher's stream
//! down       inputs: silu(gate) * up of the ternary ones  target: the teacher's down on the teacher's gate and up
//! ```
//!
//! **Invariant:** a row never ends worse than least squares on the held-out tokens, whatever the calibration holds.

use moe_runtime::forward::SwiGlu;
use tl_kernels::{ActivationBuffer, Linear, Pool};

use super::moments::{CHUNK_TOKENS, Moments, product};
use super::report::{MatrixReport, NetworkReport};
use super::rows::{RowSolver, TernaryRow};
use super::search::Effort;
use super::steps::{Step, Steps};
use crate::error::Result;

/// Added to the Hessian's diagonal, as a share of its mean, with the teacher's weight as the target: inputs without
/// information leave the weight as it is.
const RIDGE: f64 = 1e-4;
/// Fewest held-out tokens that can judge a row; with fewer, every row is that of least squares.
const MIN_HELD_OUT: usize = 8;

/// The settings of the search.
#[derive(Clone, Debug)]
pub(super) struct Search {
    pub(super) steps: Steps,
    pub(super) effort: Effort,
    pub(super) seed: u64,
}

/// One matrix of a network.
#[derive(Debug)]
pub(super) struct Matrix {
    /// The teacher's weights, `[rows, cols]`.
    pub(super) teacher: Vec<f32>,
    /// The values that the type gives without calibration, `[rows, cols]`.
    pub(super) plain: Vec<f32>,
    /// Length of a row.
    pub(super) cols: usize,
    /// Whether the matrix is ternary; others stay as they are.
    pub(super) is_ternary: bool,
}

/// The tokens that a network sees.
#[derive(Debug)]
pub(super) struct Tokens {
    /// Positions in the streams, ascending.
    pub(super) positions: Vec<u32>,
    /// The weight of each token in the sums.
    pub(super) weights: Vec<f32>,
}

/// Writes the inputs of the tokens at some positions: the student's rows, then the teacher's, each `[n, hidden]`.
pub(super) type Inputs<'a> = dyn Fn(&[u32], &mut [f32], &mut [f32]) + 'a;

/// The rows of gate, up and down; `None` for a row that stays that of least squares, an empty list for a matrix that is
/// not ternary.
pub(super) type Rows = [Vec<Option<TernaryRow>>; 3];

/// Solves for the ternary matrices of a network, which `fit` and `held_out` tokens see.
pub(super) fn calibrate(
    pool: &Pool,
    search: &Search,
    teacher: &SwiGlu,
    matrices: &[Matrix; 3],
    tokens: [&Tokens; 2],
    inputs: &Inputs<'_>,
) -> Result<(Rows, NetworkReport)> {
    let [gate, up, down] = matrices;
    let [fit, held_out] = tokens;
    let mut moments = [Moments::new(gate.cols, false), Moments::new(gate.cols, true)];
    for (moments, tokens) in moments.iter_mut().zip(tokens) {
        for_chunks(tokens, gate.cols, inputs, &mut |xq, xf, weights| moments.add(pool, xq, xf, weights))?;
    }
    let part = |i: u64| Search { seed: search.seed.wrapping_mul(3).wrapping_add(i), ..search.clone() };
    let (gate_rows, gate_report) = solve(pool, &part(0), gate, &moments)?;
    let (up_rows, up_report) = solve(pool, &part(1), up, &moments)?;
    drop(moments);

    let hidden = down.cols;
    let linear = |matrix: &Matrix, rows: &[Option<TernaryRow>]| -> Result<Linear> {
        let values = values(matrix, rows);
        Ok(Linear::from_f32(values.len() / matrix.cols, matrix.cols, values).map_err(moe_runtime::Error::from)?)
    };
    let student = teacher.with_gate_and_up(linear(gate, &gate_rows)?, linear(up, &up_rows)?)?;
    let mut moments = [Moments::new(hidden, false), Moments::new(hidden, true)];
    let mut acts = ActivationBuffer::new();
    for (moments, tokens) in moments.iter_mut().zip(tokens) {
        for_chunks(tokens, gate.cols, inputs, &mut |xq, xf, weights| {
            let mut hidden_of = |network: &SwiGlu, x: &[f32]| {
                acts.set(x, weights.len(), gate.cols);
                let mut out = vec![0.0; weights.len() * hidden];
                network.hidden_rows(pool, &mut acts, &mut out);
                out
            };
            let (hq, hf) = (hidden_of(&student, xq), hidden_of(teacher, xf));
            moments.add(pool, &hq, &hf, weights)
        })?;
    }
    let (down_rows, down_report) = solve(pool, &part(2), down, &moments)?;
    let report = NetworkReport {
        tokens: fit.positions.len() + held_out.positions.len(),
        held_out_tokens: held_out.positions.len(),
        gate: gate_report,
        up: up_report,
        down: down_report,
    };
    Ok(([gate_rows, up_rows, down_rows], report))
}

/// Receives the student's inputs, the teacher's inputs and the weights of some tokens.
type Take<'a> = dyn FnMut(&[f32], &[f32], &[f32]) -> Result<()> + 'a;

/// Hands the inputs and weights of `tokens` to `take`, some tokens at a time.
fn for_chunks(tokens: &Tokens, cols: usize, inputs: &Inputs<'_>, take: &mut Take<'_>) -> Result<()> {
    let (mut xq, mut xf) = (Vec::new(), Vec::new());
    for (positions, weights) in tokens.positions.chunks(CHUNK_TOKENS).zip(tokens.weights.chunks(CHUNK_TOKENS)) {
        xq.resize(positions.len() * cols, 0.0);
        xf.resize(positions.len() * cols, 0.0);
        inputs(positions, &mut xq, &mut xf);
        take(&xq, &xf, weights)?;
    }
    Ok(())
}

/// The values of a matrix: of its rows where they were solved for, else the plain ones.
fn values(matrix: &Matrix, rows: &[Option<TernaryRow>]) -> Vec<f32> {
    let mut values = matrix.plain.clone();
    for (out, row) in values.chunks_exact_mut(matrix.cols).zip(rows) {
        if let Some(row) = row {
            row.write_values(out);
        }
    }
    values
}

/// The rows of a ternary matrix for the moments of the tokens to fit and of those held out.
fn solve(
    pool: &Pool,
    search: &Search,
    matrix: &Matrix,
    moments: &[Moments; 2],
) -> Result<(Vec<Option<TernaryRow>>, Option<MatrixReport>)> {
    if !matrix.is_ternary {
        return Ok((Vec::new(), None));
    }
    let (n, [fit, held_out]) = (matrix.cols, moments);
    let n_rows = matrix.teacher.len() / n;
    let mut rows: Vec<Option<TernaryRow>> = vec![None; n_rows];
    if fit.mean_diagonal() > 0.0 && held_out.tokens >= MIN_HELD_OUT {
        let (hessian, target) = shaped(fit, &search.steps);
        let targets = product(pool, &matrix.teacher, &target, n)?;
        let solver = RowSolver::new(&hessian, n, search.steps.clone(), search.effort);
        pool.chunks_mut(&mut rows, 1, |r, out| {
            let (target, weights) = (&targets[r * n..][..n], &matrix.teacher[r * n..][..n]);
            let seed = search.seed.wrapping_mul(1 << 20).wrapping_add(r as u64);
            out[0] = solver.solve(target, weights, seed);
        });
    }
    let before = held_out_errors(pool, matrix, &matrix.plain, held_out)?;
    let mut after = held_out_errors(pool, matrix, &values(matrix, &rows), held_out)?;
    if search.steps.has(Step::Acceptance) {
        for ((row, after), before) in rows.iter_mut().zip(&mut after).zip(&before) {
            let better = *after < *before; // false for NaN
            if !better {
                *row = None;
                *after = *before;
            }
        }
    }
    let total = |errors: &[f64]| errors.iter().sum::<f64>();
    let energy = energy(pool, matrix, held_out)?;
    let share = |errors: f64| if energy > 0.0 { ((errors + energy) / energy).max(0.0) } else { 0.0 };
    let report = MatrixReport {
        error_before: share(total(&before)),
        error_after: share(total(&after)),
        rows: n_rows,
        rows_calibrated: rows.iter().flatten().count(),
    };
    Ok((rows, Some(report)))
}

/// The Hessian and the transposed matrix that turns rows of the teacher into targets.
fn shaped(moments: &Moments, steps: &Steps) -> (Vec<f64>, Vec<f64>) {
    let n = moments.n;
    let tokens_per_input = moments.tokens as f64 / n as f64;
    let shrinkage =
        if steps.has(Step::Shrinkage) { (0.5 / (tokens_per_input / 2.0).sqrt()).clamp(0.05, 0.8) } else { 0.0 };
    let ridge = RIDGE * moments.mean_diagonal();
    let shape = |matrix: &[f64]| {
        let mut shaped: Vec<f64> = matrix.iter().map(|value| (1.0 - shrinkage) * value).collect();
        for i in 0..n {
            shaped[i * n + i] = matrix[i * n + i] + ridge;
        }
        shaped
    };
    let hessian = shape(&moments.student);
    let target = if steps.has(Step::StudentInputs) { transposed(&shape(&moments.cross), n) } else { hessian.clone() };
    (hessian, target)
}

fn transposed(matrix: &[f64], n: usize) -> Vec<f64> {
    (0..n * n).map(|at| matrix[at % n * n + at / n]).collect()
}

/// `q H q' - 2 w C q'` of every row on the held-out tokens: the error without its constant part.
fn held_out_errors(pool: &Pool, matrix: &Matrix, values: &[f32], held_out: &Moments) -> Result<Vec<f64>> {
    let n = matrix.cols;
    let own = product(pool, values, &held_out.student, n)?;
    let wanted = product(pool, &matrix.teacher, &transposed(&held_out.cross, n), n)?;
    let rows = values.chunks_exact(n).zip(own.chunks_exact(n)).zip(wanted.chunks_exact(n));
    Ok(rows
        .map(|((q, own), wanted)| {
            q.iter()
                .zip(own.iter().zip(wanted))
                .map(|(&q, (&h, &c))| f64::from(q) * (f64::from(h) - 2.0 * f64::from(c)))
                .sum()
        })
        .collect())
}

/// `sum w F w'` of all rows: the weighted squared length of the teacher's outputs.
fn energy(pool: &Pool, matrix: &Matrix, held_out: &Moments) -> Result<f64> {
    let Some(teacher) = &held_out.teacher else { return Ok(0.0) };
    let outputs = product(pool, &matrix.teacher, teacher, matrix.cols)?;
    Ok(matrix.teacher.iter().zip(&outputs).map(|(&w, &y)| f64::from(w) * f64::from(y)).sum())
}
