//! Latent attention with expanded keys and values: the absorbed form of the runtime computes the same numbers.
//!
//! ```text
//! q   = W_qb norm(W_qa x)   or W_q x             per head nope | rope, the second part turned
//! c|p = W_kva x                                  c normed, p turned
//! k_h = c K_h | p          v_h = V_h c           K_h [latent, nope], V_h [value, latent]
//! out = W_o concat(attend(q, k, v))
//! ```

use moe_runtime::models::MlaDims;
use tl_kernels::strided::{Mat, Out, multiply};

use super::context::{Backward, Context};
use super::linear::{Linear, Norm};
use crate::error::Result;
use crate::train::ops::attend::{Heads, Qkv, attend, attend_backward};
use crate::train::ops::rope::Turn;
use crate::train::params::PartGradient;

/// The attention of one layer.
#[derive(Debug)]
pub(crate) struct Mla {
    dims: MlaDims,
    heads: Heads,
    /// The compression of the queries and its norm.
    q_a: Option<(Linear, Norm)>,
    q_b: Linear,
    kv_a: Linear,
    kv_norm: Norm,
    k_b: Vec<Linear>,
    v_b: Vec<Linear>,
    out: Linear,
}

/// The values between the input and the output.
#[derive(Debug)]
pub(crate) struct Tape {
    /// Before and after the norm of the compressed queries.
    q_low: Option<[Vec<f32>; 2]>,
    /// `[n, latent]`, before and after its norm.
    latents: [Vec<f32>; 2],
    qkv: Qkv,
}

impl Mla {
    pub(crate) fn read(context: Context<'_>, dims: MlaDims) -> Result<Self> {
        let config = context.config();
        let read = |part: &str, cols| Linear::read(context, part, 0, cols);
        let (q_a, q_b) = match dims.q_lora {
            None => (None, read("attn_q.weight", config.hidden)?),
            Some(rank) => {
                let norm = Norm::read(context, "attn_q_a_norm.weight", dims.latent_norm_eps)?;
                (Some((read("attn_q_a.weight", config.hidden)?, norm)), read("attn_q_b.weight", rank)?)
            }
        };
        let stack = |part: &str, cols| {
            (0..config.n_heads).map(|head| Linear::read(context, part, head, cols)).collect::<Result<Vec<_>>>()
        };
        let key = dims.qk_nope + dims.qk_rope;
        let scale = 1.0 / (key as f32).sqrt();
        Ok(Self {
            dims,
            heads: Heads { n: config.n_heads, n_kv: config.n_heads, key, value: dims.v_head, scale },
            q_a,
            q_b,
            kv_a: read("attn_kv_a_mqa.weight", config.hidden)?,
            kv_norm: Norm::read(context, "attn_kv_a_norm.weight", dims.latent_norm_eps)?,
            k_b: stack("attn_k_b.weight", dims.qk_nope)?,
            v_b: stack("attn_v_b.weight", dims.kv_lora)?,
            out: read("attn_output.weight", config.n_heads * dims.v_head)?,
        })
    }

    /// The values between `x` `[n, hidden]` and the attention.
    pub(crate) fn tape(&self, context: Context<'_>, x: &[f32]) -> Tape {
        let (dims, heads) = (&self.dims, self.heads);
        let n = x.len() / context.config().hidden;
        let q_low = self.q_a.as_ref().map(|(a, norm)| {
            let low = a.forward(context, x);
            let normed = norm.forward(context, &low);
            [low, normed]
        });
        let q = self.q_b.forward(context, q_low.as_ref().map_or(x, |[_, normed]| normed));
        let joint = self.kv_a.forward(context, x);
        let width = dims.kv_lora + dims.qk_rope;
        let raw: Vec<f32> = joint.chunks_exact(width).flat_map(|row| &row[..dims.kv_lora]).copied().collect();
        let latents = self.kv_norm.forward(context, &raw);
        let mut qkv = Qkv { q, ..Qkv::zeros(heads, n) };
        for head in 0..heads.n {
            let c = Mat::new(&latents, n, dims.kv_lora);
            let keys =
                Out::to(&mut qkv.k, heads.n * heads.key).columns(head * heads.key..head * heads.key + dims.qk_nope);
            multiply(context.pool, keys, c, self.k_b[head].mat());
            let values =
                Out::to(&mut qkv.v, heads.n * heads.value).columns(head * heads.value..(head + 1) * heads.value);
            multiply(context.pool, values, c, self.v_b[head].mat().t());
        }
        for (t, position) in context.positions().enumerate() {
            let mut turned = joint[t * width + dims.kv_lora..(t + 1) * width].to_vec();
            context.turns.rotate(position, &mut turned, Turn::Forward);
            let row = t * heads.n * heads.key..(t + 1) * heads.n * heads.key;
            for head in qkv.k[row.clone()].chunks_exact_mut(heads.key) {
                head[dims.qk_nope..].copy_from_slice(&turned);
            }
            for head in qkv.q[row].chunks_exact_mut(heads.key) {
                context.turns.rotate(position, &mut head[dims.qk_nope..], Turn::Forward);
            }
        }
        Tape { q_low, latents: [raw, latents], qkv }
    }

    /// The input of the output projection, `[n, heads, value]`.
    fn attended(&self, context: Context<'_>, tape: &Tape) -> Vec<f32> {
        attend(context.pool, self.heads, context.windows, &tape.qkv)
    }

    /// The output `[n, hidden]`.
    pub(crate) fn output(&self, context: Context<'_>, tape: &Tape) -> Vec<f32> {
        self.out.forward(context, &self.attended(context, tape))
    }

    /// The gradients for the gradient `d_out` `[n, hidden]` of the output.
    pub(crate) fn backward(&self, context: Context<'_>, tape: &Tape, [x, d_out]: [&[f32]; 2]) -> Backward {
        let (dims, heads) = (&self.dims, self.heads);
        let mut parts = Vec::new();
        let n = x.len() / context.config().hidden;
        let mut d_attended = vec![0.0; n * heads.n * heads.value];
        // The gradient of the projection alone needs its input.
        let attended = if self.out.is_wanted(context) { self.attended(context, tape) } else { Vec::new() };
        self.out.backward(context, [&attended, d_out], &mut d_attended, &mut parts);
        let mut d = attend_backward(context.pool, heads, context.windows, &tape.qkv, &d_attended);
        let width = dims.kv_lora + dims.qk_rope;
        let mut d_joint = vec![0.0; n * width];
        for (t, position) in context.positions().enumerate() {
            let row = t * heads.n * heads.key..(t + 1) * heads.n * heads.key;
            let d_turned = &mut d_joint[t * width + dims.kv_lora..(t + 1) * width];
            for head in d.k[row.clone()].chunks_exact(heads.key) {
                d_turned.iter_mut().zip(&head[dims.qk_nope..]).for_each(|(sum, value)| *sum += value);
            }
            context.turns.rotate(position, d_turned, Turn::Backward);
            for head in d.q[row].chunks_exact_mut(heads.key) {
                context.turns.rotate(position, &mut head[dims.qk_nope..], Turn::Backward);
            }
        }
        let d_latents = self.latents_backward(context, tape, &d, &mut parts);
        let mut d_raw = vec![0.0; d_latents.len()];
        self.kv_norm.backward(context, [&tape.latents[0], &d_latents], &mut d_raw, &mut parts);
        for (joint, raw) in d_joint.chunks_exact_mut(width).zip(d_raw.chunks_exact(dims.kv_lora)) {
            joint[..dims.kv_lora].copy_from_slice(raw);
        }
        let mut d_x = vec![0.0; x.len()];
        self.kv_a.backward(context, [x, &d_joint], &mut d_x, &mut parts);
        match (&self.q_a, &tape.q_low) {
            (Some((a, norm)), Some([low, normed])) => {
                let (mut d_normed, mut d_low) = (vec![0.0; low.len()], vec![0.0; low.len()]);
                self.q_b.backward(context, [normed, &d.q], &mut d_normed, &mut parts);
                norm.backward(context, [low, &d_normed], &mut d_low, &mut parts);
                a.backward(context, [x, &d_low], &mut d_x, &mut parts);
            }
            _ => self.q_b.backward(context, [x, &d.q], &mut d_x, &mut parts),
        }
        Backward { d_x, parts }
    }

    /// The gradient of the normed latents `[n, latent]` for those of keys and values.
    fn latents_backward(&self, context: Context<'_>, tape: &Tape, d: &Qkv, parts: &mut Vec<PartGradient>) -> Vec<f32> {
        let (dims, heads) = (&self.dims, self.heads);
        let latents = &tape.latents[1];
        let n = latents.len() / dims.kv_lora;
        let mut d_latents = vec![0.0; latents.len()];
        let c = Mat::new(latents, n, dims.kv_lora);
        for head in 0..heads.n {
            let first = head * heads.key;
            let d_keys = Mat::new(&d.k, n, heads.n * heads.key).columns(first..first + dims.qk_nope);
            let values = head * heads.value..(head + 1) * heads.value;
            let d_values = Mat::new(&d.v, n, heads.n * heads.value).columns(values);
            let (k_b, v_b) = (&self.k_b[head], &self.v_b[head]);
            multiply(context.pool, Out::onto(&mut d_latents, dims.kv_lora), d_keys, k_b.mat().t());
            multiply(context.pool, Out::onto(&mut d_latents, dims.kv_lora), d_values, v_b.mat());
            if k_b.is_wanted(context) {
                let mut d_k_b = vec![0.0; dims.kv_lora * dims.qk_nope];
                multiply(context.pool, Out::to(&mut d_k_b, dims.qk_nope), c.t(), d_keys);
                k_b.add_gradient(context, d_k_b, parts);
            }
            if v_b.is_wanted(context) {
                let mut d_v_b = vec![0.0; heads.value * dims.kv_lora];
                multiply(context.pool, Out::to(&mut d_v_b, dims.kv_lora), d_values.t(), c);
                v_b.add_gradient(context, d_v_b, parts);
            }
        }
        d_latents
    }
}
