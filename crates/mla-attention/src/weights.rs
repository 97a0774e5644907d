//! What both kinds of attention ask of their weights, and how they apply one.

use tl_kernels::{ActivationBuffer, Linear, Pool, Product, forward_all};

use crate::{Error, GqaAttention, GqaWeights, MlaAttention, MlaWeights, QueryProjection};

/// Refuses a matrix that is not `[rows, cols]`.
pub(crate) fn check_linear(name: &'static str, linear: &Linear, rows: usize, cols: usize) -> Result<(), Error> {
    if (linear.rows(), linear.cols()) == (rows, cols) {
        return Ok(());
    }
    let got = vec![linear.rows(), linear.cols()];
    Err(Error::WeightShape { name, expected: vec![rows, cols], got })
}

/// Refuses a vector that does not hold `len` values.
pub(crate) fn check_vector(name: &'static str, vector: &[f32], len: usize) -> Result<(), Error> {
    check_list(name, vector, len)
}

/// Refuses a list that does not hold `len` elements.
pub(crate) fn check_list<T>(name: &'static str, list: &[T], len: usize) -> Result<(), Error> {
    if list.len() == len {
        return Ok(());
    }
    Err(Error::WeightShape { name, expected: vec![len], got: vec![list.len()] })
}

/// `y = linear(acts)`, `[n, rows]`; the input is quantised first if this matrix wants it so and
/// no other has asked before.
pub(crate) fn project(pool: &Pool, linear: &Linear, acts: &mut ActivationBuffer, y: &mut [f32]) {
    acts.quantize(linear.act_mode());
    linear.forward(pool, acts, y);
}

/// As [`project`], for two matrices that read the same input: the threads meet once.
pub(crate) fn project_two(
    pool: &Pool,
    (a, y_a): (&Linear, &mut [f32]),
    (b, y_b): (&Linear, &mut [f32]),
    acts: &mut ActivationBuffer,
) {
    acts.quantize(a.act_mode());
    acts.quantize(b.act_mode());
    forward_all(pool, [Product { linear: a, acts, y: y_a }, Product { linear: b, acts, y: y_b }]);
}

impl MlaAttention {
    /// All matrices.
    pub(crate) fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let MlaWeights { q, kv_a, k_b, v_b, out, .. } = self.weights_mut();
        let mut linears = vec![kv_a, out];
        match q {
            QueryProjection::Direct(q) => linears.push(q),
            QueryProjection::LowRank { a, b, .. } => linears.extend([a, b]),
        }
        linears.extend(k_b.iter_mut().chain(v_b));
        linears
    }
}

impl GqaAttention {
    /// All matrices.
    pub(crate) fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let GqaWeights { q, k, v, out, .. } = self.weights_mut();
        vec![q, k, v, out]
    }
}
