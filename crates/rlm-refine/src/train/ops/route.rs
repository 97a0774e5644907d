//! The gradient of the weights of chosen experts by the router's logits. The choice itself has none.

use moe_runtime::forward::RoutingDecision;
use moe_runtime::models::{Gating, RouterConfig, WeightNorm};

/// The gradient of the logits `[n, n_experts]` for the gradient `d_weights` `[n, top_k]` of the weights of a decision.
///
/// ```text
/// w_k = scaling s_k / (sum of chosen s + eps)      d_s_k = scaling (d_w_k - sum_j d_w_j s_j / S) / S
/// sigmoid: d_z = d_s s (1 - s)      softmax: d_z = s (d_s - sum_j d_s_j s_j)
/// ```
#[must_use]
pub fn route_backward(
    config: &RouterConfig,
    scores: &[f32],
    decision: &RoutingDecision,
    d_weights: &[f32],
) -> Vec<f32> {
    let (e, k) = (config.n_experts, config.top_k);
    let mut d_logits = vec![0.0; scores.len()];
    let tokens = d_logits.chunks_exact_mut(e).zip(scores.chunks_exact(e));
    let chosen = decision.ids.chunks_exact(k).zip(d_weights.chunks_exact(k));
    for ((d_logits, scores), (ids, d_weights)) in tokens.zip(chosen) {
        let score = |id: &u32| f64::from(scores[*id as usize]);
        let scaled = |d: &f32| f64::from(*d) * f64::from(config.scaling);
        let (divisor, mean) = match config.norm {
            WeightNorm::None => (1.0, 0.0),
            WeightNorm::Sum { eps } => {
                let sum = ids.iter().map(score).sum::<f64>() + f64::from(eps);
                (sum, ids.iter().zip(d_weights).map(|(id, d)| scaled(d) * score(id)).sum::<f64>() / sum)
            }
        };
        for (id, d) in ids.iter().zip(d_weights) {
            d_logits[*id as usize] = ((scaled(d) - mean) / divisor) as f32;
        }
        match config.gating {
            Gating::Sigmoid => d_logits.iter_mut().zip(scores).for_each(|(d, s)| *d *= s * (1.0 - s)),
            Gating::Softmax => {
                let mean: f32 = d_logits.iter().zip(scores).map(|(d, s)| d * s).sum();
                d_logits.iter_mut().zip(scores).for_each(|(d, s)| *d = s * (*d - mean));
            }
        }
    }
    d_logits
}
