//! One answer that is ordered from the engine.

use std::sync::Arc;

use moe_runtime::{Grammar, LoopConfig, Priority, SamplerConfig, ToolSchemas};

use crate::http::divergence::Changed;
use crate::http::engine::Prompt;
use crate::http::tally::Tally;

/// A prompt and everything that decides the answer to it.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) prompt: Prompt,
    pub(crate) sampling: SamplerConfig,
    pub(crate) rules: Rules,
    pub(crate) max_tokens: usize,
    pub(crate) loops: LoopConfig,
    /// The tools that the model may call; without them the markup of calls is content.
    pub(crate) tools: Option<Arc<ToolSchemas>>,
    /// How many of the most likely tokens are told beside each token of the answer; `None` for no scores.
    pub(crate) logprobs: Option<usize>,
    /// Whether the tokens of the prompt are scored too.
    pub(crate) prompt_logprobs: bool,
    /// The part of the prompt that an earlier request, the nearest one, had otherwise.
    pub(crate) changed: Option<Changed>,
    /// The sender: the place in the queue, and the account of the limits.
    pub(crate) caller: Caller,
}

/// Rules for the tokens of an answer, beside the settings of the sampler.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// Texts that end the answer.
    pub(crate) stops: Vec<String>,
    /// Numbers that are added to the logits of tokens.
    pub(crate) bias: Vec<(u32, f32)>,
    /// Most tokens of a thought.
    pub(crate) thought_budget: Option<usize>,
    /// The form of the answer behind its thought.
    pub(crate) form: Option<Form>,
}

/// A grammar that an answer has to follow.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    /// The field of the request that demands it.
    pub(crate) field: &'static str,
    pub(crate) grammar: Grammar,
    /// Whether it binds the whole answer; otherwise the calls in it alone.
    pub(crate) is_whole: bool,
}

impl Order {
    /// `n` orders of the same answer with seeds that follow each other.
    pub(crate) fn times(self, n: usize) -> Vec<Order> {
        let seed = self.sampling.seed;
        let with_seed = |i: usize| Order {
            sampling: SamplerConfig { seed: seed.wrapping_add(i as u64), ..self.sampling },
            ..self.clone()
        };
        (0..n).map(with_seed).collect()
    }
}

/// The sender of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    pub(crate) account: String,
    pub(crate) affinity: String,
    pub(crate) priority: Priority,
    /// The request in the counts.
    pub(crate) tally: Option<Arc<Tally>>,
}

impl Caller {
    /// The name of the session, which no other account has; empty where the client names none.
    pub(crate) fn session(&self) -> String {
        if self.affinity.is_empty() { String::new() } else { format!("{}\0{}", self.account, self.affinity) }
    }
}
