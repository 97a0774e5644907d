//! One layer of a training model: its output, and its gradients from its two inputs.
//!
//! ```text
//! x ── norm ── attention ── + ──► mid ── norm ── experts or network ── + ──►
//!                                          └──── sidecar ───────────── ┘
//! ```
//!
//! **Invariant:** the backward pass computes everything between the two saved rows again where the forward pass did not keep it, by
//! the same operations, so gradients have the same bits either way.

use moe_runtime::adapters::SIDECAR;
use moe_runtime::models::{AttentionConfig, MoeConfig};

use super::params::Gradients;
use super::parts::addition::Addition;
use super::parts::context::{Backward, Context};
use super::parts::experts;
use super::parts::gqa::{self, Gqa};
use super::parts::linear::Norm;
use super::parts::mla::{self, Mla};
use super::parts::network::{self, Network};
use crate::error::Result;

/// The residual stream in front of a layer and behind its attention, both `[n, hidden]`.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) x: Vec<f32>,
    mid: Vec<f32>,
    kept: Option<Kept>,
}

/// The values between the rows of the residual stream.
#[derive(Debug)]
struct Kept {
    attention: Tape,
    feed: Feed,
}

#[derive(Debug)]
enum Feed {
    Network(network::Tape),
    Experts(experts::Tape),
}

enum Attention {
    Mla(Mla),
    Gqa(Gqa),
}

#[derive(Debug)]
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

    fn output(&self, context: Context<'_>, tape: &Tape) -> Vec<f32> {
        match (self, tape) {
            (Attention::Mla(attention), Tape::Mla(tape)) => attention.output(context, tape),
            (Attention::Gqa(attention), Tape::Gqa(tape)) => attention.output(context, tape),
            _ => unreachable!("an attention makes the tape of its own kind"),
        }
    }

    fn backward(&self, context: Context<'_>, tape: &Tape, [x, d_out]: [&[f32]; 2]) -> Result<Backward> {
        match (self, tape) {
            (Attention::Mla(attention), Tape::Mla(tape)) => Ok(attention.backward(context, tape, [x, d_out])),
            (Attention::Gqa(attention), Tape::Gqa(tape)) => attention.backward(context, tape, [x, d_out]),
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

/// The sidecar of the layer, where an adapter has one.
fn sidecar(context: Context<'_>) -> Option<Addition> {
    Addition::read(context, &context.name(SIDECAR), 0)
}

/// Moves `x` `[n, hidden]` behind the layer, and saves what its backward pass needs; with `keeps`, the values in between too.
pub(super) fn forward(context: Context<'_>, x: Vec<f32>, keeps: bool) -> Result<(Vec<f32>, Saved)> {
    let (mid, attention) = attend_with_tape(context, &x)?;
    let attention = keeps.then_some(attention);
    let (out, feed) = feed_with_tape(context, &mid, keeps)?;
    let kept = attention.map(|attention| Kept { attention, feed });
    Ok((out, Saved { x, mid, kept }))
}

/// The residual stream behind the attention, for the stream `x` `[n, hidden]` in front of the layer.
pub(super) fn attend(context: Context<'_>, x: &[f32]) -> Result<Vec<f32>> {
    Ok(attend_with_tape(context, x)?.0)
}

/// The residual stream behind the layer, for the stream `mid` `[n, hidden]` behind its attention.
pub(super) fn feed(context: Context<'_>, mid: &[f32]) -> Result<Vec<f32>> {
    Ok(feed_with_tape(context, mid, false)?.0)
}

fn attend_with_tape(context: Context<'_>, x: &[f32]) -> Result<(Vec<f32>, Tape)> {
    let [attention_norm, _] = norms(context)?;
    let attention = Attention::read(context)?;
    let tape = attention.tape(context, &attention_norm.forward(context, x))?;
    let mut mid = attention.output(context, &tape);
    add(&mut mid, x);
    Ok((mid, tape))
}

fn feed_with_tape(context: Context<'_>, mid: &[f32], keeps: bool) -> Result<(Vec<f32>, Feed)> {
    let normed = norm_for_ffn(context, mid)?;
    let (mut out, feed) = match moe(context) {
        None => {
            let network = Network::read(context, "", 0)?;
            let tape = network.tape(context, &normed);
            (network.output(context, &tape), Feed::Network(tape))
        }
        Some(moe) => {
            let routing = experts::route(context, moe, &normed)?;
            let (out, tape) = experts::forward(context, moe, routing, &normed, keeps)?;
            (out, Feed::Experts(tape))
        }
    };
    if let Some(sidecar) = sidecar(context) {
        sidecar.add(context, &normed, &mut out);
    }
    add(&mut out, mid);
    Ok((out, feed))
}

/// The input of the router or of the network, for the stream `mid` `[n, hidden]` behind the attention.
pub(super) fn norm_for_ffn(context: Context<'_>, mid: &[f32]) -> Result<Vec<f32>> {
    let [_, ffn_norm] = norms(context)?;
    Ok(ffn_norm.forward(context, mid))
}

/// The gradients for the gradient `d_out` `[n, hidden]` of the layer's output; those of routed experts are added to `gradients` at
/// once.
pub(super) fn backward(context: Context<'_>, saved: Saved, d_out: Vec<f32>, gradients: &Gradients) -> Result<Backward> {
    let [attention_norm, ffn_norm] = norms(context)?;
    let Saved { x, mid, kept } = saved;
    let (attention_tape, feed) = kept.map(|kept| (kept.attention, kept.feed)).unzip();
    let normed = ffn_norm.forward(context, &mid);
    let mut d = feed_backward(context, feed, [&normed, &d_out], gradients)?;
    let mut parts = std::mem::take(&mut d.parts);
    if let Some(sidecar) = sidecar(context) {
        sidecar.backward(context, [&normed, &d_out], &mut d.d_x, &mut parts);
    }
    let mut d_mid = d_out;
    ffn_norm.backward(context, [&mid, &d.d_x], &mut d_mid, &mut parts);

    let normed = attention_norm.forward(context, &x);
    let attention = Attention::read(context)?;
    let tape = attention_tape.map_or_else(|| attention.tape(context, &normed), Ok)?;
    let attention = attention.backward(context, &tape, [&normed, &d_mid])?;
    parts.extend(attention.parts);
    let mut d_x = d_mid;
    attention_norm.backward(context, [&x, &attention.d_x], &mut d_x, &mut parts);
    Ok(Backward { d_x, parts })
}

/// The gradients of the network or the experts for the input `normed` and the gradient `d_out` of the output.
fn feed_backward(
    context: Context<'_>,
    kept: Option<Feed>,
    rows: [&[f32]; 2],
    gradients: &Gradients,
) -> Result<Backward> {
    let Some(moe) = moe(context) else {
        let network = Network::read(context, "", 0)?;
        let tape = match kept {
            Some(Feed::Network(tape)) => tape,
            _ => network.tape(context, rows[0]),
        };
        return Ok(network.backward(context, &tape, rows, None).backward);
    };
    let tape = match kept {
        Some(Feed::Experts(tape)) => tape,
        _ => experts::Tape::again(experts::route(context, moe, rows[0])?),
    };
    experts::backward(context, moe, tape, rows, gradients)
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
