//! Products with a layer's matrices, and the buffers they are written to.

use tl_kernels::{ActivationBuffer, Linear, Pool, Product, forward_all};

/// `y = linear(acts)`, `[n, rows]`; quantises the input first if this matrix reads quantised activations and no earlier
/// matrix has asked for them.
pub(crate) fn project(pool: &Pool, linear: &Linear, acts: &mut ActivationBuffer, y: &mut [f32]) {
    acts.quantize(linear.act_mode());
    linear.forward(pool, acts, y);
}

/// As [`project`], for two matrices that read the same input: one work list, so the threads wait for each other once.
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

/// The first `len` values of a buffer that grows when it must and never shrinks.
pub(crate) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
