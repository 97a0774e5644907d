//! Answers of a loaded model to a prompt, and the experts that tokens were sent to.
//!
//! **Invariant:** answers follow from the model, the prompt and the seed; a prompt is read once for all of its answers.

use std::sync::Arc;

use behavior_eval::model::Answer;
use mla_attention::CacheType;
use moe_runtime::forward::{At, RoutingDecision, Taps};
use moe_runtime::{CraftsmanModel, Sampler, SamplerConfig, Session, Tokenizer};

use super::GrpoOptions;
use crate::error::Result;
use crate::measure::Exchange;

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

impl<'a> Respondent<'a> {
    /// Reads a prompt once for all of its answers.
    pub(super) fn read(&self, prompt: &'a [u32]) -> Result<Reading<'_>> {
        let tokens = prompt.len() + self.options.max_new_tokens + 1;
        let mut session = Session::new(self.model.clone(), tokens, CacheType::F32)?.with_chunk(BATCH_TOKENS);
        let read = prompt.len().saturating_sub(1);
        session.prefill(&prompt[..read], &mut ())?;
        Ok(Reading { respondent: self, session, prompt, read })
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
}

/// A model that has read a prompt but for its last token. Each answer continues a fork of the session.
pub(super) struct Reading<'a> {
    respondent: &'a Respondent<'a>,
    session: Session,
    prompt: &'a [u32],
    /// Tokens that the session holds.
    read: usize,
}

impl Reading<'_> {
    /// The answer of one sampler.
    pub(super) fn answer(&self, sampler: SamplerConfig) -> Result<Completion> {
        let (mut session, mut sampler) = (self.session.fork()?, Sampler::new(sampler)?);
        let Respondent { tokenizer, options, .. } = self.respondent;
        let exchange = Exchange { session: &mut session, tokenizer, max_new_tokens: options.max_new_tokens };
        let (answer, end) = exchange.answer(&self.prompt[self.read..], &mut sampler)?;
        let tokens = self.prompt.iter().chain(&answer.tokens).copied().chain(end).collect();
        Ok(Completion { tokens, prompt: self.prompt.len(), answer })
    }

    /// The experts of each token of an answer to the prompt in each layer, layer by layer; those of the prompt's last token are the
    /// first.
    pub(super) fn experts(&self, completion: &Completion) -> Result<Vec<Vec<u32>>> {
        let mut experts = Experts(vec![Vec::new(); self.respondent.model.config().n_layers]);
        self.session.fork()?.prefill(&completion.tokens[self.read..], &mut experts)?;
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
