//! The product inside a feed-forward network: `act(gate) up`, with SiLU or the squared ReLU as `act`.

use moe_runtime::models::Activation;
use tl_kernels::math;

/// `act(gate) up`, value by value.
#[must_use]
pub fn gated(activation: Activation, gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut out = gate.to_vec();
    activation.gate(&mut out, up);
    out
}

/// The gradients of gate and up for the gradient `d_y` of [`gated`].
#[must_use]
pub fn gated_backward(activation: Activation, gate: &[f32], up: &[f32], d_y: &[f32]) -> [Vec<f32>; 2] {
    let (mut d_gate, mut d_up) = (vec![0.0; gate.len()], vec![0.0; gate.len()]);
    let mut sigmoids = gate.to_vec();
    if activation == Activation::Silu {
        math::sigmoid_in_place(&mut sigmoids);
    }
    for i in 0..gate.len() {
        let (value, slope) = match activation {
            Activation::Silu => {
                let s = sigmoids[i];
                (gate[i] * s, s * (1.0 + gate[i] * (1.0 - s)))
            }
            Activation::SquaredRelu => {
                let positive = gate[i].max(0.0);
                (positive * positive, 2.0 * positive)
            }
        };
        d_gate[i] = d_y[i] * up[i] * slope;
        d_up[i] = d_y[i] * value;
    }
    [d_gate, d_up]
}
