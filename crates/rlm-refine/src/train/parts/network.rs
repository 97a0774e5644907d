//! A feed-forward network: `down(norm(act(gate(x)) up(x)))`.

use super::context::{Backward, Context};
use super::linear::{Linear, Norm};
use crate::error::Result;
use crate::train::ops::gate::{gated, gated_backward};

/// The matrices of a network.
#[derive(Debug)]
pub(crate) struct Network {
    gate: Linear,
    up: Linear,
    down: Linear,
    /// The norm of the product, in the dense networks of some models.
    norm: Option<Norm>,
}

/// The values between the input and the output of a network.
#[derive(Debug)]
pub(crate) struct Tape {
    gate: Vec<f32>,
    up: Vec<f32>,
    /// The input of `down` where it has no norm.
    product: Vec<f32>,
    /// That input where it has one.
    normed: Option<Vec<f32>>,
}

/// The gradients of a network, and of the weights of its output.
#[derive(Debug, Default)]
pub(crate) struct NetworkBackward {
    pub(crate) backward: Backward,
    /// `[n]`: the gradient of the weight that each row of the output is multiplied with.
    pub(crate) d_weights: Vec<f32>,
}

impl Network {
    /// The network whose tensors end in `suffix`: the expert `outer` of a stack, or one by itself.
    pub(crate) fn read(context: Context<'_>, suffix: &str, outer: usize) -> Result<Self> {
        let hidden = context.config().hidden;
        let read = |part: &str, cols| Linear::read(context, &format!("ffn_{part}{suffix}.weight"), outer, cols);
        let gate = read("gate", hidden)?;
        let (up, down) = (read("up", hidden)?, read("down", gate.rows())?);
        let norm = if suffix.is_empty() {
            Norm::optional(context, "ffn_sub_norm.weight", context.config().norm_eps)?
        } else {
            None
        };
        Ok(Self { gate, up, down, norm })
    }

    /// The values between `x` `[n, hidden]` and the output.
    pub(crate) fn tape(&self, context: Context<'_>, x: &[f32]) -> Tape {
        let (gate, up) = (self.gate.forward(context, x), self.up.forward(context, x));
        let product = gated(context.config().activation, &gate, &up);
        let normed = self.norm.as_ref().map(|norm| norm.forward(context, &product));
        Tape { gate, up, product, normed }
    }

    /// The output `[n, hidden]`.
    pub(crate) fn output(&self, context: Context<'_>, tape: &Tape) -> Vec<f32> {
        self.down.forward(context, tape.normed.as_ref().unwrap_or(&tape.product))
    }

    /// The output `[n, hidden]` for `x` `[n, hidden]`.
    pub(crate) fn forward(&self, context: Context<'_>, x: &[f32]) -> Vec<f32> {
        self.output(context, &self.tape(context, x))
    }

    /// The gradients for the gradient `d_y` of the output, each of whose rows is multiplied with one of `weights`; all 1 where
    /// there are none.
    pub(crate) fn backward(
        &self,
        context: Context<'_>,
        tape: &Tape,
        [x, d_y]: [&[f32]; 2],
        weights: Option<&[f32]>,
    ) -> NetworkBackward {
        let Tape { gate, up, product, normed } = tape;
        let hidden = normed.as_ref().unwrap_or(product);
        let mut parts = Vec::new();
        let ff = self.gate.rows();
        let width = self.down.rows();
        let scaled = weights.map(|weights| {
            let rows = d_y.chunks_exact(width).zip(weights);
            rows.flat_map(|(row, weight)| row.iter().map(move |d| d * weight)).collect::<Vec<f32>>()
        });
        let mut d_hidden = vec![0.0; hidden.len()];
        self.down.backward(context, [hidden, scaled.as_deref().unwrap_or(d_y)], &mut d_hidden, &mut parts);
        let rows = d_hidden.chunks_exact(ff).zip(hidden.chunks_exact(ff));
        // The derivative by a weight is that of the unweighted row: the weight is divided out again.
        let along = |(d, h): (&[f32], &[f32])| d.iter().zip(h).map(|(d, h)| d * h).sum::<f32>();
        let d_weights = weights.map_or_else(Vec::new, |weights| {
            rows.zip(weights).map(|(row, &weight)| if weight == 0.0 { 0.0 } else { along(row) / weight }).collect()
        });
        let d_product = match &self.norm {
            None => d_hidden,
            Some(norm) => {
                let mut d_product = vec![0.0; product.len()];
                norm.backward(context, [product, &d_hidden], &mut d_product, &mut parts);
                d_product
            }
        };
        let [d_gate, d_up] = gated_backward(context.config().activation, gate, up, &d_product);
        let mut d_x = vec![0.0; x.len()];
        self.gate.backward(context, [x, &d_gate], &mut d_x, &mut parts);
        self.up.backward(context, [x, &d_up], &mut d_x, &mut parts);
        NetworkBackward { backward: Backward { d_x, parts }, d_weights }
    }
}
