//! The feed-forward part of the layers with experts as configured: their number and width, and the routing rule.

use std::fmt;

use super::limits::{MAX_DIM, MAX_EXPERTS, bad, positive, within};
use super::table::Presence;
use crate::error::Result;

/// Added to the sum of the selected scores before dividing by it.
pub(crate) const WEIGHT_SUM_EPS: f32 = 1e-20;

/// How router logits become scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gating {
    /// Each expert's score is independent of the others (GLM-4, DeepSeek-V3).
    Sigmoid,
    /// Scores sum to 1 over all experts (DeepSeek-V2).
    Softmax,
}

impl fmt::Display for Gating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Gating::Sigmoid => "sigmoid",
            Gating::Softmax => "softmax",
        })
    }
}

/// How a group of experts is scored when only the best groups may be chosen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupScore {
    /// The sum of its two best selection scores (`noaux_tc`).
    TopTwoSum,
    /// Its best selection score (`group_limited_greedy`).
    Max,
}

/// The divisor of the selected experts' weights before they are scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WeightNorm {
    /// The weights stay as the scores are.
    None,
    /// Their sum plus this small number (1e-20 in transformers).
    Sum {
        /// The small number: it keeps the divisor above 0.
        eps: f32,
    },
}

impl WeightNorm {
    /// Weights divided by their sum, or left as they are.
    pub(crate) fn normalised(yes: bool) -> WeightNorm {
        if yes { WeightNorm::Sum { eps: WEIGHT_SUM_EPS } } else { WeightNorm::None }
    }
}

/// The routing rule of every MoE layer.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterConfig {
    /// How logits become scores.
    pub gating: Gating,
    /// Routed experts per layer.
    pub n_experts: usize,
    /// Routed experts per token.
    pub top_k: usize,
    /// Groups that the experts are cut into, in order; 1 means no grouping.
    pub n_group: usize,
    /// Groups that a token may choose experts from.
    pub topk_group: usize,
    /// The number by which groups are compared.
    pub group_score: GroupScore,
    /// Whether the weights are divided by their sum.
    pub norm: WeightNorm,
    /// Factor on the weights (`routed_scaling_factor`).
    pub scaling: f32,
    /// Whether the layers have a bias that takes part in the selection only.
    pub selection_bias: Presence,
}

/// The feed-forward part of the MoE layers.
#[derive(Clone, Debug, PartialEq)]
pub struct MoeConfig {
    /// How a token's experts are chosen and weighted.
    pub router: RouterConfig,
    /// Width of one routed expert.
    pub expert_ff: usize,
    /// Shared experts; they are stored as one expert of `n_shared * expert_ff`.
    pub n_shared: usize,
}

impl MoeConfig {
    /// Width of the shared expert, 0 without one.
    #[must_use]
    pub fn shared_ff(&self) -> usize {
        self.n_shared * self.expert_ff
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let r = &self.router;
        within("experts", r.n_experts, 1, MAX_EXPERTS)?;
        within("experts per token", r.top_k, 1, r.n_experts)?;
        within("expert feed-forward width", self.expert_ff, 1, MAX_DIM)?;
        within("shared experts", self.n_shared, 0, MAX_EXPERTS)?;
        within("shared experts x width", self.n_shared.saturating_mul(self.expert_ff), 0, MAX_DIM)?;
        within("expert groups", r.n_group, 1, r.n_experts)?;
        within("expert groups per token", r.topk_group, 1, r.n_group)?;
        if !r.n_experts.is_multiple_of(r.n_group) {
            return Err(bad("expert groups", r.n_group, &format!("a divisor of the {} experts", r.n_experts)));
        }
        let reachable = r.n_experts / r.n_group * r.topk_group;
        if r.top_k > reachable {
            let rule = format!("at most {reachable}, the experts of {} groups", r.topk_group);
            return Err(bad("experts per token", r.top_k, &rule));
        }
        if let WeightNorm::Sum { eps } = r.norm
            && !(eps.is_finite() && eps >= 0.0)
        {
            return Err(bad("epsilon of the weight sum", eps, "finite and not negative"));
        }
        positive("expert weight scale", r.scaling)
    }
}
