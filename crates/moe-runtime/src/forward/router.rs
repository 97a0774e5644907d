//! The choice of the experts that compute a token, and of their weights.
//!
//! ```text
//! logits z = W x                      F32, 16-lane dot
//! scores s = sigmoid(z) | softmax(z)
//! select by s + bias: of the topk_group best groups, the top_k best experts; ties go to the lower index
//! weights = s of the selected (never the bias), divided by their sum + eps if the model says so, times the scaling
//! ```
//!
//! Source: the gating of DeepSeek-V3 (arXiv 2412.19437, section 2.1.2) and DeepSeek-V2 (arXiv 2405.04434, 2.2).
//!
//! **Invariant:** a token's decision depends on that token alone, and its ids ascend.

use tl_kernels::{ActivationBuffer, Linear, Pool, math};

use crate::error::{Error, Result};
use crate::load::error::LoadError;
use crate::models::experts::{Gating, GroupScore, RouterConfig, WeightNorm};

/// The experts of a batch of tokens: `top_k` per token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutingDecision {
    /// Number of experts per token.
    pub top_k: usize,
    /// `[n, top_k]`, ascending within a token.
    pub ids: Vec<u32>,
    /// `[n, top_k]`, in the order of `ids`, scaled.
    pub weights: Vec<f32>,
}

impl RoutingDecision {
    /// Number of tokens in the batch.
    #[must_use]
    pub fn n(&self) -> usize {
        self.ids.len().checked_div(self.top_k).unwrap_or(0)
    }

    /// The (expert, weight) pairs of one token.
    ///
    /// # Panics
    /// When there is no such token.
    pub fn token(&self, t: usize) -> impl Iterator<Item = (u32, f32)> + '_ {
        let span = t * self.top_k..(t + 1) * self.top_k;
        self.ids[span.clone()].iter().copied().zip(self.weights[span].iter().copied())
    }
}

/// Buffers of [`MoeRouter::route`], reused from batch to batch.
#[derive(Clone, Debug, Default)]
pub struct RouterScratch {
    /// `[n, n_experts]`, before gating.
    pub logits: Vec<f32>,
    /// `[n, n_experts]`, after gating, before the bias.
    pub scores: Vec<f32>,
    /// The experts that were chosen.
    pub decision: RoutingDecision,
    candidates: Candidates,
}

/// Buffers of the selection for one token.
#[derive(Clone, Debug, Default)]
struct Candidates {
    /// `[n_experts]`: score plus bias.
    selection: Vec<f32>,
    /// `[n_experts]`: may still be chosen.
    open: Vec<bool>,
    /// Score of each group, `[n_group]`.
    groups: Vec<f32>,
    chosen_groups: Vec<bool>,
}

/// The router of one layer.
#[derive(Debug)]
pub struct MoeRouter {
    config: RouterConfig,
    /// The matrix of the logits, `[n_experts, hidden]`, F32.
    weight: Linear,
    /// Added to the scores for the selection only, `[n_experts]`.
    bias: Option<Vec<f32>>,
}

impl MoeRouter {
    /// A router over `weight` `[n_experts, hidden]` and the selection bias `[n_experts]`.
    ///
    /// # Errors
    /// [`LoadError::Shape`] when a weight has another size than the configuration says.
    pub fn new(config: RouterConfig, weight: Linear, bias: Option<Vec<f32>>) -> Result<MoeRouter> {
        if weight.rows() != config.n_experts {
            return Err(Error::Load(LoadError::Shape {
                tensor: "router".to_owned(),
                expected: vec![config.n_experts, weight.cols()],
                got: vec![weight.rows(), weight.cols()],
            }));
        }
        if let Some(bias) = bias.as_ref().filter(|b| b.len() != config.n_experts) {
            return Err(Error::Load(LoadError::Shape {
                tensor: "router selection bias".to_owned(),
                expected: vec![config.n_experts],
                got: vec![bias.len()],
            }));
        }
        Ok(MoeRouter { config, weight, bias })
    }

    /// The rule by which experts are chosen.
    #[must_use]
    pub fn config(&self) -> &RouterConfig {
        &self.config
    }

    /// The selection bias, `[n_experts]`.
    #[must_use]
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// The weight, `[n_experts, hidden]`.
    #[must_use]
    pub fn weight(&self) -> &Linear {
        &self.weight
    }

    /// Decides for every row of `x` `[n, hidden]`; the outcome is in `scratch`.
    pub fn route(&self, pool: &Pool, x: &ActivationBuffer, scratch: &mut RouterScratch) {
        let (n, e, k) = (x.n(), self.config.n_experts, self.config.top_k);
        let RouterScratch { logits, scores, decision, candidates } = scratch;
        logits.resize(n * e, 0.0);
        self.weight.forward(pool, x, logits);
        scores.clear();
        scores.extend_from_slice(logits);
        match self.config.gating {
            Gating::Sigmoid => math::sigmoid_in_place(scores),
            Gating::Softmax => scores.chunks_exact_mut(e).for_each(math::softmax_in_place),
        }
        decision.top_k = k;
        decision.ids.clear();
        decision.ids.resize(n * k, 0);
        decision.weights.clear();
        decision.weights.resize(n * k, 0.0);
        let rows = decision.ids.chunks_exact_mut(k).zip(decision.weights.chunks_exact_mut(k));
        for ((ids, weights), scores) in rows.zip(scores.chunks_exact(e)) {
            self.decide(scores, candidates, ids, weights);
        }
    }

    /// Chooses `ids` `[top_k]` and their `weights` from one token's scores `[n_experts]`.
    fn decide(&self, scores: &[f32], candidates: &mut Candidates, ids: &mut [u32], weights: &mut [f32]) {
        let config = &self.config;
        let Candidates { selection, open, groups, chosen_groups } = candidates;
        selection.clear();
        selection.extend_from_slice(scores);
        for (s, b) in selection.iter_mut().zip(self.bias.iter().flatten()) {
            *s += b;
        }
        open.clear();
        if config.n_group > 1 {
            let size = config.n_experts / config.n_group;
            groups.clear();
            groups.extend(selection.chunks_exact(size).map(|group| group_score(config.group_score, group)));
            chosen_groups.clear();
            chosen_groups.resize(config.n_group, true);
            for _ in 0..config.topk_group {
                if let Some(best) = best_open(groups, chosen_groups) {
                    chosen_groups[best] = false;
                }
            }
            // `best_open` has closed the groups it chose, so their experts are the ones that stay open.
            open.extend((0..config.n_experts).map(|i| !chosen_groups[i / size]));
        } else {
            open.resize(config.n_experts, true);
        }
        for id in ids.iter_mut() {
            let best = best_open(selection, open).expect("validate() leaves top_k experts open");
            open[best] = false;
            *id = u32::try_from(best).expect("validate() bounds the number of experts");
        }
        ids.sort_unstable();
        for (weight, &id) in weights.iter_mut().zip(ids.iter()) {
            *weight = scores[id as usize];
        }
        if let WeightNorm::Sum { eps } = config.norm {
            let sum = weights.iter().sum::<f32>() + eps;
            weights.iter_mut().for_each(|w| *w /= sum);
        }
        weights.iter_mut().for_each(|w| *w *= config.scaling);
    }
}

fn group_score(rule: GroupScore, group: &[f32]) -> f32 {
    let (mut best, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for &s in group {
        if s > best {
            (best, second) = (s, best);
        } else if s > second {
            second = s;
        }
    }
    match rule {
        GroupScore::TopTwoSum if group.len() > 1 => best + second,
        _ => best,
    }
}

/// Index of the largest open value. The lower index wins a tie, and any number wins over NaN.
fn best_open(values: &[f32], open: &[bool]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (i, (&value, &is_open)) in values.iter().zip(open).enumerate() {
        let wins = |b: usize| value > values[b] || (values[b].is_nan() && !value.is_nan());
        if is_open && best.is_none_or(wins) {
            best = Some(i);
        }
    }
    best
}
