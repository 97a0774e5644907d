//! The addition of an adapter to a matrix, or its sidecar, whose factors are trained:
//!
//! ```text
//! y += B (A x)        dB = d (A x)'        dA = (B' d) x'        dx += A' (B' d)
//! ```

use tl_kernels::strided::{Mat, Out, multiply};

use super::context::Context;
use crate::train::params::PartGradient;

/// The factors `[rank, inputs]` and `[outputs, rank]` of an addition, with their places in the registry.
#[derive(Clone, Debug)]
pub(crate) struct Addition {
    /// Entry and first number of each factor.
    places: [(usize, usize); 2],
    rank: usize,
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Addition {
    /// The addition to matrix `outer` of the tensor `name`, if it has one.
    pub(crate) fn read(context: Context<'_>, name: &str, outer: usize) -> Option<Self> {
        let [(a, of_a), (b, of_b)] = context.weights.factors(name, outer)?;
        let params = context.weights.params.list();
        Some(Self {
            places: [(a, of_a.start), (b, of_b.start)],
            rank: params[b].cols,
            a: params[a].values[of_a].to_vec(),
            b: params[b].values[of_b].to_vec(),
        })
    }

    fn mats(&self) -> [Mat<'_>; 2] {
        let rank = self.rank;
        [Mat::new(&self.a, rank, self.a.len() / rank), Mat::new(&self.b, self.b.len() / rank, rank)]
    }

    /// `A x` for the rows of `x`, `[n, rank]`.
    fn ranks(&self, context: Context<'_>, x: Mat<'_>, n: usize) -> Vec<f32> {
        let mut ranks = vec![0.0; n * self.rank];
        multiply(context.pool, Out::to(&mut ranks, self.rank), x, self.mats()[0].t());
        ranks
    }

    /// Adds `B (A x)` to `y` `[n, outputs]`.
    pub(crate) fn add(&self, context: Context<'_>, x: &[f32], y: &mut [f32]) {
        let ([inputs, outputs], [_, b]) = (self.widths(), self.mats());
        let n = y.len() / outputs;
        let ranks = self.ranks(context, Mat::new(x, n, inputs), n);
        multiply(context.pool, Out::onto(y, outputs), Mat::new(&ranks, n, self.rank), b.t());
    }

    /// Adds the gradient of the input to `d_x` and those of the factors to `parts`.
    pub(crate) fn backward(
        &self,
        context: Context<'_>,
        [x, d_y]: [&[f32]; 2],
        d_x: &mut [f32],
        parts: &mut Vec<PartGradient>,
    ) {
        let ([inputs, outputs], [a, b], pool) = (self.widths(), self.mats(), context.pool);
        let n = d_y.len() / outputs;
        let (x, d_y) = (Mat::new(x, n, inputs), Mat::new(d_y, n, outputs));
        let ranks = self.ranks(context, x, n);
        let mut d_ranks = vec![0.0; ranks.len()];
        multiply(pool, Out::to(&mut d_ranks, self.rank), d_y, b);
        let d_ranks = Mat::new(&d_ranks, n, self.rank);
        multiply(pool, Out::onto(d_x, inputs), d_ranks, a);
        let (mut d_a, mut d_b) = (vec![0.0; self.a.len()], vec![0.0; self.b.len()]);
        multiply(pool, Out::to(&mut d_a, inputs), d_ranks.t(), x);
        multiply(pool, Out::to(&mut d_b, self.rank), d_y.t(), Mat::new(&ranks, n, self.rank));
        for ((param, first), values) in self.places.into_iter().zip([d_a, d_b]) {
            parts.push(PartGradient { param, first, values });
        }
    }

    /// Inputs and outputs of the matrix.
    fn widths(&self) -> [usize; 2] {
        [self.a.len() / self.rank, self.b.len() / self.rank]
    }
}
