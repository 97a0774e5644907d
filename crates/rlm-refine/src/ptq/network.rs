//! The ternary matrices of one feed-forward network: gate and up first, then down on what they leave.
//!
//! ```text
//! gate, up   inputs: the normed residual stream           target: the teacher's gate and up on the teacher's stream
//! down       inputs: silu(gate) * up of the ternary ones  target: the teacher's down on the teacher's gate and up
//! ```

use moe_runtime::forward::SwiGlu;
use tl_kernels::{ActivationBuffer, Linear, Pool};

use super::inputs::InputMoments;
use super::moments::{CHUNK_TOKENS, Moments};
use super::problem::{Matrix, Problem};
use super::report::{MatrixReport, NetworkReport};
use super::rows::TernaryRow;
use super::steps::Search;
use crate::error::Result;

/// Tokens that a network sees.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// Positions in the streams.
    pub(super) positions: Vec<u32>,
    /// The weight of each token in the sums.
    pub(super) weights: Vec<f32>,
}

impl Tokens {
    pub(super) fn push(&mut self, position: usize, weight: f32) {
        self.positions.push(u32::try_from(position).unwrap_or(u32::MAX));
        self.weights.push(weight);
    }
}

/// Writes the inputs of the tokens at some positions: the student's rows, then the teacher's, each `[n, hidden]`.
pub(super) type Inputs<'a> = dyn Fn(&[u32], &mut [f32], &mut [f32]) + 'a;

/// The rows of gate, up and down; `None` for a row that stays that of least squares, an empty list for a matrix that is
/// not ternary.
pub(super) type NetworkRows = [Vec<Option<TernaryRow>>; 3];

/// Solves for the ternary matrices of a network, which `fit` and `held_out` tokens see.
pub(super) fn calibrate(
    pool: &Pool,
    search: &Search,
    teacher: &SwiGlu,
    matrices: &[Matrix; 3],
    [fit, held_out]: [&Tokens; 2],
    inputs: &Inputs<'_>,
) -> Result<(NetworkRows, NetworkReport)> {
    let [gate, up, down] = matrices;
    let part = |i: u64| Search { seed: search.seed.wrapping_mul(3).wrapping_add(i), ..search.clone() };
    let (mut gate_rows, mut up_rows, mut down_rows) = (Vec::new(), Vec::new(), Vec::new());
    let mut reports = [None; 3];
    if gate.block.is_some() || up.block.is_some() {
        let mut moments = [Moments::new(gate.cols, false), Moments::new(gate.cols, true)];
        for (moments, tokens) in moments.iter_mut().zip([fit, held_out]) {
            for_chunks(tokens, gate.cols, inputs, &mut |xq, xf, weights| moments.add(pool, xq, xf, weights))?;
        }
        let read = InputMoments::new(moments)?;
        (gate_rows, reports[0]) = solve(pool, &part(0), gate, &read)?;
        (up_rows, reports[1]) = solve(pool, &part(1), up, &read)?;
    }
    if down.block.is_some() {
        let hidden = down.cols;
        let student = teacher.with_gate_and_up(linear(gate, &gate_rows)?, linear(up, &up_rows)?)?;
        let mut moments = [Moments::new(hidden, false), Moments::new(hidden, true)];
        let mut acts = ActivationBuffer::new();
        for (moments, tokens) in moments.iter_mut().zip([fit, held_out]) {
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
        (down_rows, reports[2]) = solve(pool, &part(2), down, &InputMoments::new(moments)?)?;
    }
    let [gate, up, down] = reports;
    let report = NetworkReport {
        tokens: fit.positions.len() + held_out.positions.len(),
        held_out_tokens: held_out.positions.len(),
        pooled_tokens: 0,
        gate,
        up,
        down,
    };
    Ok(([gate_rows, up_rows, down_rows], report))
}

/// The rows of a ternary matrix and their report; no rows for another.
pub(super) fn solve(
    pool: &Pool,
    search: &Search,
    matrix: &Matrix,
    inputs: &InputMoments,
) -> Result<(Vec<Option<TernaryRow>>, Option<MatrixReport>)> {
    let Some(block) = matrix.block else { return Ok((Vec::new(), None)) };
    let (rows, report) = Problem::new(pool, search, (matrix, block), inputs).solve()?;
    Ok((rows, Some(report)))
}

/// The matrix with `rows` as the runtime multiplies with it.
fn linear(matrix: &Matrix, rows: &[Option<TernaryRow>]) -> Result<Linear> {
    let values = matrix.values(rows);
    Ok(Linear::from_f32(values.len() / matrix.cols, matrix.cols, values).map_err(moe_runtime::Error::from)?)
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
