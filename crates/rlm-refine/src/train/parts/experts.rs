//! A router and its experts: tokens are grouped by expert, each expert is one task.
//!
//! **Invariant:** outputs and gradients are added in ascending order of the experts, the shared one last.

use moe_runtime::forward::{MoeRouter, RouterScratch, RoutingDecision};
use moe_runtime::models::{MoeConfig, RouterConfig};
use tl_kernels::{ActivationBuffer, Pool};

use super::context::{Backward, Context};
use super::linear::Linear;
use super::network::{Network, NetworkBackward};
use crate::error::Result;
use crate::train::ops::route::route_backward;

/// The choice of a router for some tokens.
#[derive(Debug)]
pub(crate) struct Routing {
    pub(crate) decision: RoutingDecision,
    /// The score of every expert, `[n, n_experts]`.
    scores: Vec<f32>,
}

/// The matrix of a layer's router.
pub(crate) const ROUTER: &str = "ffn_gate_inp.weight";
/// The bias of its selection.
pub(crate) const ROUTER_BIAS: &str = "exp_probs_b.bias";

/// Routes the rows of `x` `[n, hidden]`.
pub(crate) fn route(context: Context<'_>, moe: &MoeConfig, x: &[f32]) -> Result<Routing> {
    let weight = context.weights.matrix(&context.name(ROUTER), 0)?;
    let bias = context.weights.optional_vector(&context.name(ROUTER_BIAS))?;
    let scratch = route_with(context.pool, &moe.router, (weight, bias), x, context.config().hidden)?;
    Ok(Routing { decision: scratch.decision, scores: scratch.scores })
}

/// Routes the rows of `x` `[n, hidden]` with a matrix `[n_experts, hidden]` and a bias `[n_experts]`.
pub(crate) fn route_with(
    pool: &Pool,
    config: &RouterConfig,
    (weight, bias): (Vec<f32>, Option<Vec<f32>>),
    x: &[f32],
    hidden: usize,
) -> Result<RouterScratch> {
    let weight = tl_kernels::Linear::from_f32(config.n_experts, hidden, weight).map_err(moe_runtime::Error::from)?;
    let router = MoeRouter::new(config.clone(), weight, bias)?;
    let (mut acts, mut scratch) = (ActivationBuffer::new(), RouterScratch::default());
    acts.set(x, x.len() / hidden, hidden);
    router.route(pool, &acts, &mut scratch);
    Ok(scratch)
}

/// The tokens of one expert.
struct Share<T> {
    expert: usize,
    /// Rows of the batch.
    tokens: Vec<usize>,
    /// Places in the decision's `[n, top_k]`.
    slots: Vec<usize>,
    /// The weight of the expert for each of its tokens.
    weights: Vec<f32>,
    done: Result<T>,
}

fn shares<T: Default>(moe: &MoeConfig, decision: &RoutingDecision) -> Vec<Share<T>> {
    let empty =
        |expert| Share { expert, tokens: Vec::new(), slots: Vec::new(), weights: Vec::new(), done: Ok(T::default()) };
    let mut shares: Vec<Share<T>> = (0..moe.router.n_experts).map(empty).collect();
    for (slot, (&id, &weight)) in decision.ids.iter().zip(&decision.weights).enumerate() {
        let share = &mut shares[id as usize];
        share.tokens.push(slot / decision.top_k.max(1));
        share.slots.push(slot);
        share.weights.push(weight);
    }
    shares.retain(|share| !share.tokens.is_empty());
    shares
}

fn gather(x: &[f32], width: usize, tokens: &[usize]) -> Vec<f32> {
    tokens.iter().flat_map(|&t| &x[t * width..(t + 1) * width]).copied().collect()
}

fn scatter_add(rows: &[f32], width: usize, tokens: &[usize], into: &mut [f32]) {
    for (row, &t) in rows.chunks_exact(width).zip(tokens) {
        into[t * width..(t + 1) * width].iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
}

/// The sum of the experts' outputs for `x` `[n, hidden]`.
pub(crate) fn forward(context: Context<'_>, moe: &MoeConfig, routing: &Routing, x: &[f32]) -> Result<Vec<f32>> {
    let hidden = context.config().hidden;
    let mut shares = shares::<Vec<f32>>(moe, &routing.decision);
    context.pool.chunks_mut(&mut shares, 1, |_, share| {
        let share = &mut share[0];
        share.done = Network::read(context, "_exps", share.expert).map(|network| {
            let mut y = network.forward(context, &gather(x, hidden, &share.tokens));
            for (row, weight) in y.chunks_exact_mut(hidden).zip(&share.weights) {
                row.iter_mut().for_each(|y| *y *= weight);
            }
            y
        });
    });
    let mut out = vec![0.0; x.len()];
    for share in shares {
        scatter_add(&share.done?, hidden, &share.tokens, &mut out);
    }
    if moe.shared_ff() > 0 {
        let shared = Network::read(context, "_shexp", 0)?.forward(context, x);
        out.iter_mut().zip(&shared).for_each(|(sum, value)| *sum += value);
    }
    Ok(out)
}

/// The gradients for the gradient `d_y` `[n, hidden]` of the sum, those of the router among them.
pub(crate) fn backward(
    context: Context<'_>,
    moe: &MoeConfig,
    routing: &Routing,
    [x, d_y]: [&[f32]; 2],
) -> Result<Backward> {
    let hidden = context.config().hidden;
    let mut shares = shares::<NetworkBackward>(moe, &routing.decision);
    context.pool.chunks_mut(&mut shares, 1, |_, share| {
        let share = &mut share[0];
        share.done = Network::read(context, "_exps", share.expert).map(|network| {
            let rows = [x, d_y].map(|rows| gather(rows, hidden, &share.tokens));
            network.backward(context, &rows[0], &rows[1], Some(&share.weights))
        });
    });
    let mut sum = Backward { d_x: vec![0.0; x.len()], parts: Vec::new() };
    let mut d_weights = vec![0.0; routing.decision.weights.len()];
    for share in shares {
        let done = share.done?;
        scatter_add(&done.backward.d_x, hidden, &share.tokens, &mut sum.d_x);
        sum.parts.extend(done.backward.parts);
        share.slots.iter().zip(&done.d_weights).for_each(|(&slot, &d)| d_weights[slot] = d);
    }
    if moe.shared_ff() > 0 {
        let done = Network::read(context, "_shexp", 0)?.backward(context, x, d_y, None).backward;
        sum.d_x.iter_mut().zip(&done.d_x).for_each(|(sum, value)| *sum += value);
        sum.parts.extend(done.parts);
    }
    let d_logits = route_backward(&moe.router, &routing.scores, &routing.decision, &d_weights);
    let router = Linear::read(context, ROUTER, 0, hidden)?;
    router.backward(context, [x, &d_logits], &mut sum.d_x, &mut sum.parts);
    Ok(sum)
}
