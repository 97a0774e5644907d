//! A router in use: its choices for rows of inputs, and those of the teacher's router as labels.

use moe_runtime::forward::RouterScratch;
use moe_runtime::models::RouterConfig;
use tl_kernels::Pool;

use crate::error::Result;
use crate::train::batches::shuffled;
use crate::train::parts::experts::route_with;

/// The answers of the teacher's router for some tokens.
pub(super) struct Labels {
    /// `[n, n_experts]`, before gating.
    pub(super) logits: Vec<f32>,
    /// `[n, n_experts]`, after gating.
    pub(super) scores: Vec<f32>,
    /// `[n, top_k]`, ascending within a token.
    pub(super) ids: Vec<u32>,
}

impl Labels {
    pub(super) fn of(scratch: RouterScratch) -> Self {
        Self { logits: scratch.logits, scores: scratch.scores, ids: scratch.decision.ids }
    }

    /// The labels of tokens in another order.
    pub(super) fn shuffled(self, config: &RouterConfig, seed: u64) -> Self {
        let order = shuffled(self.ids.len() / config.top_k, seed);
        Self {
            logits: taken(&self.logits, config.n_experts, &order),
            scores: taken(&self.scores, config.n_experts, &order),
            ids: taken(&self.ids, config.top_k, &order),
        }
    }
}

/// The rows of `width` numbers in an order.
pub(super) fn taken<T: Copy>(rows: &[T], width: usize, order: &[usize]) -> Vec<T> {
    order.iter().flat_map(|&row| &rows[row * width..(row + 1) * width]).copied().collect()
}

/// A router with the inputs that it reads.
pub(super) struct Routed<'a> {
    pub(super) pool: &'a Pool,
    pub(super) config: &'a RouterConfig,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) hidden: usize,
}

impl Routed<'_> {
    /// The choices of the router `weight` `[n_experts, hidden]` for rows `x` `[n, hidden]`.
    pub(super) fn route(&self, weight: &[f32], x: &[f32]) -> Result<RouterScratch> {
        route_with(self.pool, self.config, (weight.to_vec(), self.bias.map(<[f32]>::to_vec)), x, self.hidden)
    }

    /// The share of rows whose set of experts is that of `ids`.
    pub(super) fn agreement(&self, weight: &[f32], x: &[f32], ids: &[u32]) -> Result<f64> {
        let k = self.config.top_k;
        let chosen = self.route(weight, x)?.decision.ids;
        let same = chosen.chunks_exact(k).zip(ids.chunks_exact(k)).filter(|(a, b)| a == b).count();
        Ok(same as f64 / (ids.len() / k).max(1) as f64)
    }
}

/// The labels of the first `n` tokens, and those of the others.
pub(super) fn split(labels: Labels, config: &RouterConfig, n: usize) -> (Labels, Labels) {
    let Labels { mut logits, mut scores, mut ids } = labels;
    let rest = Labels {
        logits: logits.split_off(n * config.n_experts),
        scores: scores.split_off(n * config.n_experts),
        ids: ids.split_off(n * config.top_k),
    };
    (Labels { logits, scores, ids }, rest)
}
