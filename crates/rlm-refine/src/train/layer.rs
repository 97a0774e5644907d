//! One layer of a training model: its output, and its gradients from its two inputs.
//!
//! ```text
//! x ── norm ── attention ── + ──► mid ── norm ── experts or network ── + ──►
//! ```
//!
//! **Invariant:** the backward pass computes everything between the two saved rows again, so a pass holds two rows of the
//! residual stream per token and layer, and all other activations of one layer only.

use moe_runtime::models::{AttentionConfig, MoeConfig};

use super::parts::context::{Backward, Context};
use super::parts::experts;
use super::parts::gqa::{self, Gqa};
use super::parts::linear::Norm;
use super::parts::mla::{self, Mla};
use super::parts::network::Network;
use crate::error::Result;

/// The residual stream in front of a layer and behind its attention, both `[n, hidden]`.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    pub(super) x: Vec<f32>,
    mid: Vec<f32>,
}

enum Attention {
    Mla(Mla),
    Gqa(Gqa),
}

enum Tape {
    Mla(mla::Tape),
    Gqa(gqa::Tape),
}

impl Attention {
    fn read(context: Context<'_>) -> Result<Self> {
        Ok(match context.config().attention {
            AttentionConfig::Mla(dims) => Attention::Mla(Mla::read(context, dims)?),
            AttentionConfig::Gqa(dims) => Attention::Gqa(Gqa::read(context, dims)?),
        })
    }

    fn tape(&self, context: Context<'_>, x: &[f32]) -> Result<Tape> {
        Ok(match self {
            Attention::Mla(attention) => Tape::Mla(attention.tape(context, x)),
            Attention::Gqa(attention) => Tape::Gqa(attention.tape(context, x)?),
        })
    }

    fn forward(&self, context: Context<'_>, x: &[f32]) -> Result<Vec<f32>> {
        Ok(match self {
            Attention::Mla(attention) => attention.output(context, &attention.tape(context, x)),
            Attention::Gqa(attention) => attention.output(context, &attention.tape(context, x)?),
        })
    }

    fn backward(&self, context: Context<'_>, x: &[f32], d_out: &[f32]) -> Result<Backward> {
        match (self, self.tape(context, x)?) {
            (Attention::Mla(attention), Tape::Mla(tape)) => Ok(attention.backward(context, &tape, [x, d_out])),
            (Attention::Gqa(attention), Tape::Gqa(tape)) => attention.backward(context, &tape, [x, d_out]),
            _ => unreachable!("an attention makes the tape of its own kind"),
        }
    }
}

fn norms(context: Context<'_>) -> Result<[Norm; 2]> {
    let eps = context.config().norm_eps;
    Ok([Norm::read(context, "attn_norm.weight", eps)?, Norm::read(context, "ffn_norm.weight", eps)?])
}

/// The experts of the layer; `None` for a dense one.
fn moe(context: Context<'_>) -> Option<&MoeConfig> {
    let config = context.config();
    config.moe.as_ref().filter(|_| config.is_moe(context.layer))
}

/// Moves `x` `[n, hidden]` behind the layer, and saves what its backward pass needs.
pub(super) fn forward(context: Context<'_>, x: Vec<f32>) -> Result<(Vec<f32>, Saved)> {
    let mid = attend(context, &x)?;
    Ok((feed(context, &mid)?, Saved { x, mid }))
}

/// The residual stream behind the attention, for the stream `x` `[n, hidden]` in front of the layer.
pub(super) fn attend(context: Context<'_>, x: &[f32]) -> Result<Vec<f32>> {
    let [attention_norm, _] = norms(context)?;
    let mut mid = Attention::read(context)?.forward(context, &attention_norm.forward(context, x))?;
    add(&mut mid, x);
    Ok(mid)
}

/// The residual stream behind the layer, for the stream `mid` `[n, hidden]` behind its attention.
pub(super) fn feed(context: Context<'_>, mid: &[f32]) -> Result<Vec<f32>> {
    let normed = norm_for_ffn(context, mid)?;
    let mut out = match moe(context) {
        None => Network::read(context, "", 0)?.forward(context, &normed),
        Some(moe) => experts::forward(context, moe, &experts::route(context, moe, &normed)?, &normed)?,
    };
    add(&mut out, mid);
    Ok(out)
}

/// The input of the router or of the network, for the stream `mid` `[n, hidden]` behind the attention.
pub(super) fn norm_for_ffn(context: Context<'_>, mid: &[f32]) -> Result<Vec<f32>> {
    let [_, ffn_norm] = norms(context)?;
    Ok(ffn_norm.forward(context, mid))
}

/// The gradients for the gradient `d_out` `[n, hidden]` of the layer's output.
pub(super) fn backward(context: Context<'_>, saved: &Saved, d_out: Vec<f32>) -> Result<Backward> {
    let [attention_norm, ffn_norm] = norms(context)?;
    let normed = ffn_norm.forward(context, &saved.mid);
    let mut d = match moe(context) {
        None => Network::read(context, "", 0)?.backward(context, &normed, &d_out, None).backward,
        Some(moe) => experts::backward(context, moe, &experts::route(context, moe, &normed)?, [&normed, &d_out])?,
    };
    let mut parts = std::mem::take(&mut d.parts);
    let mut d_mid = d_out;
    ffn_norm.backward(context, [&saved.mid, &d.d_x], &mut d_mid, &mut parts);

    let normed = attention_norm.forward(context, &saved.x);
    let attention = Attention::read(context)?.backward(context, &normed, &d_mid)?;
    parts.extend(attention.parts);
    let mut d_x = d_mid;
    attention_norm.backward(context, [&saved.x, &attention.d_x], &mut d_x, &mut parts);
    Ok(Backward { d_x, parts })
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
