//! A router and its experts: tokens are grouped by expert, each expert is one task.
//!
//! **Invariant:** outputs and gradients are added in ascending order of the experts, the shared one last.

use moe_runtime::forward::{MoeRouter, RouterScratch, RoutingDecision};
use moe_runtime::models::{MoeConfig, RouterConfig};
use tl_kernels::{ActivationBuffer, Pool};

use super::context::{Backward, Context};
use super::linear::Linear;
use super::network::{self, Network, NetworkBackward};
use crate::error::Result;
use crate::train::ops::route::route_backward;
use crate::train::params::Gradients;

/// The choice of a router for some tokens.
#[derive(Debug)]
pub(crate) struct Routing {
    pub(crate) decision: RoutingDecision,
    /// The score of every expert, `[n, n_experts]`.
    pub(crate) scores: Vec<f32>,
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
    let mut rows = Vec::with_capacity(tokens.len() * width);
    tokens.iter().for_each(|&t| rows.extend_from_slice(&x[t * width..(t + 1) * width]));
    rows
}

fn scatter_add(rows: &[f32], width: usize, tokens: &[usize], into: &mut [f32]) {
    for (row, &t) in rows.chunks_exact(width).zip(tokens) {
        into[t * width..(t + 1) * width].iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
}

/// The values between the input and the output of a layer's experts.
#[derive(Debug)]
pub(crate) struct Tape {
    routing: Routing,
    /// Of each expert that has tokens, ascending; empty where they are to be computed again.
    routed: Vec<network::Tape>,
    shared: Option<network::Tape>,
}

impl Tape {
    /// A tape that has the choice of the router alone.
    pub(crate) fn again(routing: Routing) -> Self {
        Self { routing, routed: Vec::new(), shared: None }
    }
}

/// The sum of the experts' outputs for `x` `[n, hidden]`, and the values in between where `keeps` asks for them.
pub(crate) fn forward(
    context: Context<'_>,
    moe: &MoeConfig,
    routing: Routing,
    x: &[f32],
    keeps: bool,
) -> Result<(Vec<f32>, Tape)> {
    let hidden = context.config().hidden;
    let mut shares = shares::<(Vec<f32>, Option<network::Tape>)>(moe, &routing.decision);
    context.pool.chunks_mut(&mut shares, 1, |_, share| {
        let share = &mut share[0];
        share.done = Network::read(context, "_exps", share.expert).map(|network| {
            let tape = network.tape(context, &gather(x, hidden, &share.tokens));
            let mut y = network.output(context, &tape);
            for (row, weight) in y.chunks_exact_mut(hidden).zip(&share.weights) {
                row.iter_mut().for_each(|y| *y *= weight);
            }
            (y, keeps.then_some(tape))
        });
    });
    let (mut out, mut routed, mut kept) = (vec![0.0; x.len()], Vec::new(), None);
    for share in shares {
        let (y, tape) = share.done?;
        scatter_add(&y, hidden, &share.tokens, &mut out);
        routed.extend(tape);
    }
    if moe.shared_ff() > 0 {
        let network = Network::read(context, "_shexp", 0)?;
        let tape = network.tape(context, x);
        out.iter_mut().zip(network.output(context, &tape)).for_each(|(sum, value)| *sum += value);
        kept = keeps.then_some(tape);
    }
    Ok((out, Tape { routing, routed, shared: kept }))
}

/// The gradients for the gradient `d_y` `[n, hidden]` of the sum, those of the router among them. The gradients of an expert are added
/// to `gradients` as soon as they are there: all experts together may have more numbers than the rest of a pass.
pub(crate) fn backward(
    context: Context<'_>,
    moe: &MoeConfig,
    tape: Tape,
    [x, d_y]: [&[f32]; 2],
    gradients: &Gradients,
) -> Result<Backward> {
    let hidden = context.config().hidden;
    let Tape { routing, routed, shared } = tape;
    let mut shares = shares::<NetworkBackward>(moe, &routing.decision);
    let mut kept = routed.into_iter();
    let mut tasks: Vec<_> = shares.iter_mut().map(|share| (share, kept.next())).collect();
    context.pool.chunks_mut(&mut tasks, 1, |_, task| {
        let (share, tape) = &mut task[0];
        share.done = Network::read(context, "_exps", share.expert).map(|network| {
            let [x, d_y] = [x, d_y].map(|rows| gather(rows, hidden, &share.tokens));
            let tape = tape.take().unwrap_or_else(|| network.tape(context, &x));
            let mut done = network.backward(context, &tape, [&x, &d_y], Some(&share.weights));
            gradients.add(std::mem::take(&mut done.backward.parts));
            done
        });
    });
    let mut sum = Backward { d_x: vec![0.0; x.len()], parts: Vec::new() };
    let mut d_weights = vec![0.0; routing.decision.weights.len()];
    for share in shares {
        let done = share.done?;
        scatter_add(&done.backward.d_x, hidden, &share.tokens, &mut sum.d_x);
        share.slots.iter().zip(&done.d_weights).for_each(|(&slot, &d)| d_weights[slot] = d);
    }
    if moe.shared_ff() > 0 {
        let network = Network::read(context, "_shexp", 0)?;
        let tape = shared.unwrap_or_else(|| network.tape(context, x));
        let done = network.backward(context, &tape, [x, d_y], None).backward;
        sum.d_x.iter_mut().zip(&done.d_x).for_each(|(sum, value)| *sum += value);
        sum.parts.extend(done.parts);
    }
    let mut d_logits = route_backward(&moe.router, &routing.scores, &routing.decision, &d_weights);
    if let Some((wanted, factor)) = context.scores {
        // Of sigmoid and softmax scores alike.
        let scores = routing.scores.iter().zip(wanted);
        d_logits.iter_mut().zip(scores).for_each(|(d, (score, wanted))| *d += factor * (score - wanted));
    }
    let router = Linear::read(context, ROUTER, 0, hidden)?;
    router.backward(context, [x, &d_logits], &mut sum.d_x, &mut sum.parts);
    Ok(sum)
}
