//! Grouped-query attention, with the biases and norms that some models have.
//!
//! ```text
//! q, k, v = W x + b      q, k = turned(norm(q)), turned(norm(k))      out = W_o norm(concat(attend(q, k, v)))
//! ```

use moe_runtime::models::GqaDims;

use super::context::{Backward, Context};
use super::linear::{Linear, Norm, add_bias, bias_backward};
use crate::error::Result;
use crate::train::ops::attend::{Heads, Qkv, attend, attend_backward};
use crate::train::ops::rope::Turn;

/// The attention of one layer.
#[derive(Debug)]
pub(crate) struct Gqa {
    heads: Heads,
    /// Values of a head that are turned.
    rotary: usize,
    /// Query, key and value projections.
    projections: [Linear; 3],
    /// Norms of each head of queries and keys.
    norms: [Option<Norm>; 2],
    out_norm: Option<Norm>,
    out: Linear,
}

/// The names of the biases, in the order of the projections.
const BIASES: [&str; 3] = ["attn_q.bias", "attn_k.bias", "attn_v.bias"];

/// The values between the input and the output.
#[derive(Debug)]
pub(crate) struct Tape {
    /// Queries and keys before their norms.
    raw: [Vec<f32>; 2],
    qkv: Qkv,
    /// `[n, heads, width]`, before and after the norm.
    attended: [Vec<f32>; 2],
}

impl Gqa {
    pub(crate) fn read(context: Context<'_>, dims: GqaDims) -> Result<Self> {
        let config = context.config();
        let read = |part: &str, cols| Linear::read(context, part, 0, cols);
        let norm = |part: &str| Norm::optional(context, part, config.norm_eps);
        let width = dims.head_dim;
        Ok(Self {
            heads: Heads {
                n: config.n_heads,
                n_kv: dims.n_kv_heads,
                key: width,
                value: width,
                scale: 1.0 / (width as f32).sqrt(),
            },
            rotary: config.rope.dims,
            projections: [
                read("attn_q.weight", config.hidden)?,
                read("attn_k.weight", config.hidden)?,
                read("attn_v.weight", config.hidden)?,
            ],
            norms: [norm("attn_q_norm.weight")?, norm("attn_k_norm.weight")?],
            out_norm: norm("attn_sub_norm.weight")?,
            out: read("attn_output.weight", config.n_heads * width)?,
        })
    }

    /// The values between `x` `[n, hidden]` and the output projection.
    pub(crate) fn tape(&self, context: Context<'_>, x: &[f32]) -> Result<Tape> {
        let [mut q, mut k, mut v] = [0, 1, 2].map(|i| self.projections[i].forward(context, x));
        for (part, y) in BIASES.into_iter().zip([&mut q, &mut k, &mut v]) {
            add_bias(context, part, y)?;
        }
        let raw = [q, k];
        let [q, k] = [0, 1].map(|i| {
            let norm = self.norms[i].as_ref();
            let mut rows = norm.map_or_else(|| raw[i].clone(), |norm| norm.forward(context, &raw[i]));
            self.turn(context, &mut rows, Turn::Forward);
            rows
        });
        let qkv = Qkv { q, k, v };
        let attended = attend(context.pool, self.heads, context.windows, &qkv);
        let normed = self.out_norm.as_ref().map_or_else(|| attended.clone(), |norm| norm.forward(context, &attended));
        Ok(Tape { raw, qkv, attended: [attended, normed] })
    }

    /// Turns every head of all rows.
    fn turn(&self, context: Context<'_>, rows: &mut [f32], turn: Turn) {
        let per_token = rows.len() / context.windows.iter().sum::<usize>().max(1);
        for (row, position) in rows.chunks_exact_mut(per_token.max(1)).zip(context.positions()) {
            for head in row.chunks_exact_mut(self.heads.key) {
                context.turns.rotate(position, &mut head[..self.rotary], turn);
            }
        }
    }

    /// The output `[n, hidden]`.
    pub(crate) fn output(&self, context: Context<'_>, tape: &Tape) -> Vec<f32> {
        self.out.forward(context, &tape.attended[1])
    }

    /// The gradients for the gradient `d_out` `[n, hidden]` of the output.
    pub(crate) fn backward(&self, context: Context<'_>, tape: &Tape, [x, d_out]: [&[f32]; 2]) -> Result<Backward> {
        let mut parts = Vec::new();
        let mut d_normed = vec![0.0; tape.attended[1].len()];
        self.out.backward(context, [&tape.attended[1], d_out], &mut d_normed, &mut parts);
        let d_attended = match &self.out_norm {
            None => d_normed,
            Some(norm) => {
                let mut d_attended = vec![0.0; d_normed.len()];
                norm.backward(context, [&tape.attended[0], &d_normed], &mut d_attended, &mut parts);
                d_attended
            }
        };
        let d = attend_backward(context.pool, self.heads, context.windows, &tape.qkv, &d_attended);
        let mut rows = [d.q, d.k, d.v];
        for ((d_rows, norm), raw) in rows.iter_mut().zip(&self.norms).zip(&tape.raw) {
            self.turn(context, d_rows, Turn::Backward);
            if let Some(norm) = norm {
                let mut d_raw = vec![0.0; raw.len()];
                norm.backward(context, [raw, d_rows], &mut d_raw, &mut parts);
                *d_rows = d_raw;
            }
        }
        let mut d_x = vec![0.0; x.len()];
        for ((projection, bias), d_rows) in self.projections.iter().zip(BIASES).zip(&rows) {
            projection.backward(context, [x, d_rows], &mut d_x, &mut parts);
            bias_backward(context, bias, d_rows, &mut parts)?;
        }
        Ok(Backward { d_x, parts })
    }
}
