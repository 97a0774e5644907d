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

    /// The values between `x` `[n, hidden]` and the attention.
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
        Ok(Tape { raw, qkv })
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

    /// The attended values `[n, heads, value]`, and what their norm makes of them where there is one.
    fn attended(&self, context: Context<'_>, tape: &Tape) -> (Vec<f32>, Option<Vec<f32>>) {
        let attended = attend(context.pool, self.heads, context.windows, &tape.qkv);
        let normed = self.out_norm.as_ref().map(|norm| norm.forward(context, &attended));
        (attended, normed)
    }

    /// The output `[n, hidden]`.
    pub(crate) fn output(&self, context: Context<'_>, tape: &Tape) -> Vec<f32> {
        let (attended, normed) = self.attended(context, tape);
        self.out.forward(context, &normed.unwrap_or(attended))
    }

    /// The gradients for the gradient `d_out` `[n, hidden]` of the output.
    pub(crate) fn backward(&self, context: Context<'_>, tape: &Tape, [x, d_out]: [&[f32]; 2]) -> Result<Backward> {
        let mut parts = Vec::new();
        // The attended values, which the gradients of the projection and of the norm alone need.
        let needs = self.out_norm.is_some() || self.out.is_wanted(context);
        let (attended, normed) = if needs { self.attended(context, tape) } else { (Vec::new(), None) };
        let n = x.len() / context.config().hidden;
        let mut d_attended = vec![0.0; n * self.heads.n * self.heads.value];
        self.out.backward(context, [normed.as_ref().unwrap_or(&attended), d_out], &mut d_attended, &mut parts);
        if let Some(norm) = &self.out_norm {
            let d_normed = std::mem::replace(&mut d_attended, vec![0.0; attended.len()]);
            norm.backward(context, [&attended, &d_normed], &mut d_attended, &mut parts);
        }
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
