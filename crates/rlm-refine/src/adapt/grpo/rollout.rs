//! Answers of a loaded model to a prompt, and the experts that tokens were sent to.
//!
//! **Invariant:** answers follow from the model, the prompt and the seed.

use std::ops::ControlFlow;
use std::sync::Arc;

use behavior_eval::model::{Answer, AnswerEnd};
use mla_attention::CacheType;
use moe_runtime::forward::{At, RoutingDecision, Taps};
use moe_runtime::{
    ControlTokens, CraftsmanModel, GenerateOptions, LoopConfig, Sampler, SamplerConfig, Session, StopReason, Tokenizer,
};

use super::GrpoOptions;
use crate::error::Result;

/// Tokens that run at once.
const BATCH_TOKENS: usize = 256;

/// The answer to one prompt, sampled or greedy.
#[derive(Clone, Debug)]
pub(super) struct Completion {
    /// The tokens of the prompt, then those of the answer with the token that ended it.
    pub(super) tokens: Vec<u32>,
    /// How many of them are the prompt's.
    pub(super) prompt: usize,
    /// The answer as the judges read it.
    pub(super) answer: Answer,
}

/// A model that answers prompts.
pub(super) struct Respondent<'a> {
    pub(super) model: Arc<CraftsmanModel>,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) options: GrpoOptions,
}

impl Respondent<'_> {
    fn session(&self, tokens: usize) -> Result<Session> {
        let session = Session::new(self.model.clone(), tokens, CacheType::F32).map(|s| s.with_chunk(BATCH_TOKENS));
        Ok(session?)
    }

    /// Answers to one prompt, one per sampler.
    pub(super) fn answers(&self, prompt: &[u32], samplers: &[SamplerConfig]) -> Result<Vec<Completion>> {
        let Some((last, first)) = prompt.split_last() else { return Ok(Vec::new()) };
        let mut base = self.session(prompt.len() + self.options.max_new_tokens + 1)?;
        base.prefill(first, &mut ())?;
        let options = GenerateOptions {
            max_tokens: self.options.max_new_tokens,
            stop: self.tokenizer.stop_ids().to_vec(),
            loops: LoopConfig { max_period: 0, ..LoopConfig::default() },
            ..GenerateOptions::default()
        };
        let mut answers = Vec::with_capacity(samplers.len());
        for config in samplers {
            let (mut session, mut sampler) = (base.fork()?, Sampler::new(*config)?);
            let mut go_on = |_| ControlFlow::Continue(());
            let made = session.generate(&[*last], &options, &mut sampler, &mut (), &mut go_on)?;
            let (end, stop_reason) = match made.reason {
                StopReason::StopToken(token) => (Some(token), AnswerEnd::Stop),
                StopReason::ContextFull => (None, AnswerEnd::Context),
                _ => (None, AnswerEnd::Length),
            };
            let text = self.tokenizer.decode(&made.tokens, ControlTokens::Hide);
            let tokens = prompt.iter().chain(&made.tokens).copied().chain(end).collect();
            let answer = Answer { tokens: made.tokens, text, stop_reason };
            answers.push(Completion { tokens, prompt: prompt.len(), answer });
        }
        Ok(answers)
    }

    /// The samplers of a group.
    pub(super) fn samplers(&self, seed: u64) -> Vec<SamplerConfig> {
        let sampler = |i: usize| SamplerConfig {
            temperature: self.options.temperature,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: seed.wrapping_add((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            ..SamplerConfig::default()
        };
        (0..self.options.group).map(sampler).collect()
    }

    /// The experts of each token in each layer, layer by layer.
    pub(super) fn experts(&self, tokens: &[u32]) -> Result<Vec<Vec<u32>>> {
        let mut experts = Experts(vec![Vec::new(); self.model.config().n_layers]);
        self.session(tokens.len())?.prefill(tokens, &mut experts)?;
        Ok(experts.0)
    }
}

/// The share of tokens and layers with the same set of `top_k` experts, behind the first `skip` tokens.
pub(super) fn agreement([a, b]: [&[Vec<u32>]; 2], top_k: usize, skip: usize) -> f64 {
    let pairs = a.iter().zip(b).flat_map(|(a, b)| a.chunks_exact(top_k).zip(b.chunks_exact(top_k)).skip(skip));
    let (mut same, mut all) = (0u64, 0u64);
    for (a, b) in pairs {
        same += u64::from(a == b);
        all += 1;
    }
    same as f64 / all.max(1) as f64
}

/// Keeps the decisions of all routers; they ascend within a token.
struct Experts(Vec<Vec<u32>>);

impl Taps for Experts {
    fn routing(&mut self, at: At, decision: &mut RoutingDecision) {
        self.0[at.layer].extend_from_slice(&decision.ids);
    }
}

#[cfg(test)]
mod tests {
    use super::agreement;

    #[test]
    fn agreement_counts_tokens_and_layers_behind_the_prompt() {
        let a = [vec![], vec![0, 1, 2, 3, 4, 5], vec![0, 1, 0, 1, 0, 1]];
        let b = [vec![], vec![9, 9, 2, 3, 4, 6], vec![0, 1, 0, 1, 0, 1]];
        assert_eq!(agreement([&a, &b], 2, 1), 0.75);
        assert_eq!(agreement([&a, &b], 2, 0), 4.0 / 6.0);
        assert_eq!(agreement([&a, &a], 2, 1), 1.0);
    }
}
