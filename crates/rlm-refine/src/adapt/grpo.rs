//! `GrpoOptimizer`: rewards of sampled answers in place of a teacher's predictions.
//!
//! ```text
//! prompt ──► a group of sampled answers ──► rewards r ──► A = (r - mean) / (deviation + 1e-4)
//! per token of an answer, with p the probability of now, p0 when it was sampled, p* that of the student before the run:
//!     loss = -min(p/p0 A, clip(p/p0, 1 - c, 1 + c) A) + beta (p*/p - 1 - ln(p*/p))
//! ```
//! A group whose rewards hardly differ teaches nothing and is dropped; an update without groups changes no number. `beta` follows
//! the divergence from the student before the run. Sources: GRPO, arXiv 2402.03300; the clipped ratio and the adaptive penalty,
//! arXiv 1707.06347.
//!
//! | file | contents |
//! |---|---|
//! | `reward` | the judgement of one answer as a number |
//! | `overlay` | the student with its trained values, as the runtime loads it |
//! | `rollout` | answers, sampled or greedy, and the experts that their tokens were sent to |
//! | `practice` | updates on the prompts of a suite, and the reward on prompts that are held out |
//!
//! **Invariant:** an update follows from the values before it, the settings and its number.

mod overlay;
mod practice;
mod reward;
mod rollout;

use serde::{Deserialize, Serialize};

pub(crate) use practice::PromptRewards;
pub use practice::{HeldOutRewards, Practice};

/// Added to the deviation of a group.
const LEAST_DEVIATION: f64 = 1e-4;
/// Groups whose rewards deviate less are dropped: the agreement of routing alone must not decide.
const DROPPED_DEVIATION: f64 = 0.02;
/// The factor of one change of `beta`, and its limits.
const BETA_STEP: f64 = 1.5;
const BETA: std::ops::RangeInclusive<f64> = 1e-4..=10.0;

/// The rule by which sampled answers become steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyRule {
    /// Advantages within groups, a clipped ratio, a penalty on the divergence.
    Grpo,
    /// The control with equal samples: cross entropy on the answers above the mean of their group.
    Supervised,
    /// The control from which nothing can be learned: every reward is 0.
    ZeroRewards,
}

/// The settings of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GrpoOptions {
    /// Prompts of an update.
    pub prompts: usize,
    /// Answers per prompt, at least 4.
    pub group: usize,
    /// Most tokens of an answer.
    pub max_new_tokens: usize,
    /// Divides the logits of sampled answers.
    pub temperature: f32,
    /// The distance from 1 at which the ratio is clipped.
    pub clip: f32,
    /// The penalty's factor at the start.
    pub beta: f64,
    /// The divergence per token that `beta` is to hold, in nats.
    pub target_kl: f64,
    /// Steps on the answers of an update.
    pub epochs: usize,
    /// Factor of the agreement with the teacher's routing in the reward.
    pub routing: f64,
    /// The rule of the steps.
    pub rule: PolicyRule,
}

impl Default for GrpoOptions {
    fn default() -> Self {
        Self {
            prompts: 2,
            group: 4,
            max_new_tokens: 64,
            temperature: 1.0,
            clip: 0.2,
            beta: 0.05,
            target_kl: 0.02,
            epochs: 2,
            routing: 0.1,
            rule: PolicyRule::Grpo,
        }
    }
}

/// The figures of one update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GrpoFigures {
    /// Groups that were sampled.
    pub groups: usize,
    /// The number of them whose rewards hardly differed.
    pub dropped: usize,
    /// Mean reward of all answers.
    pub reward: f64,
    /// Mean divergence of the tokens from the student before the run, in nats.
    pub kl: f64,
    /// The factor of the penalty behind the update.
    pub beta: f64,
    /// Tokens of all answers.
    pub tokens: u64,
}

/// The rules of group-relative policy optimisation, with the penalty's factor as their state.
#[derive(Clone, Copy, Debug)]
pub struct GrpoOptimizer {
    options: GrpoOptions,
    /// The factor of the penalty.
    pub beta: f64,
}

impl GrpoOptimizer {
    /// The optimiser before its first update.
    #[must_use]
    pub fn new(options: GrpoOptions) -> Self {
        Self { options, beta: options.beta }
    }

    /// The advantage of each answer of a group; `None` for a group whose rewards hardly differ.
    #[must_use]
    pub fn advantages(rewards: &[f64]) -> Option<Vec<f64>> {
        let n = rewards.len().max(1) as f64;
        let mean = rewards.iter().sum::<f64>() / n;
        let deviation = (rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / n).sqrt();
        let of = |r: &f64| (r - mean) / (deviation + LEAST_DEVIATION);
        (deviation >= DROPPED_DEVIATION).then(|| rewards.iter().map(of).collect())
    }

    /// Raises the factor of the penalty where the divergence is far above its target, and lowers it where it is far below.
    pub fn adapt(&mut self, kl: f64) {
        if kl > BETA_STEP * self.options.target_kl {
            self.beta *= BETA_STEP;
        } else if kl < self.options.target_kl / BETA_STEP {
            self.beta /= BETA_STEP;
        }
        self.beta = self.beta.clamp(*BETA.start(), *BETA.end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advantages_have_mean_zero_and_groups_that_hardly_differ_are_dropped() {
        let advantages = GrpoOptimizer::advantages(&[1.0, 0.0, 0.0, 1.0]).unwrap();
        assert!(advantages.iter().zip([1.0, -1.0, -1.0, 1.0]).all(|(a, b)| (a - b).abs() < 1e-3), "{advantages:?}");
        assert!(GrpoOptimizer::advantages(&[0.7; 4]).is_none() && GrpoOptimizer::advantages(&[0.0; 4]).is_none());
        assert!(GrpoOptimizer::advantages(&[0.7, 0.701, 0.7, 0.699]).is_none());
        // A group of one never has an advantage.
        assert!(GrpoOptimizer::advantages(&[1.0]).is_none());
    }

    #[test]
    fn the_penalty_follows_the_divergence_within_its_limits() {
        let mut grpo = GrpoOptimizer::new(GrpoOptions { beta: 1.0, target_kl: 0.1, ..GrpoOptions::default() });
        grpo.adapt(0.1);
        assert_eq!(grpo.beta, 1.0);
        grpo.adapt(0.2);
        assert_eq!(grpo.beta, 1.5);
        (0..100).for_each(|_| grpo.adapt(1.0));
        assert_eq!(grpo.beta, 10.0);
        (0..100).for_each(|_| grpo.adapt(0.0));
        assert_eq!(grpo.beta, 1e-4);
    }
}
