//! How an answer ended, and what it took.

use std::time::Duration;

use moe_runtime::StopReason;
use serde_json::{Value, json};

/// The reason for the end of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The model ended it.
    Stop,
    /// The answer came to a stop string of the request.
    StopString(String),
    /// The model calls tools.
    Calls,
    /// The answer has as many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
    /// The answer repeated itself.
    Loop,
    /// The request was taken back, ran too long, or the server shut down.
    Cancelled,
}

impl Finish {
    pub(super) fn of(reason: StopReason) -> Finish {
        match reason {
            StopReason::StopToken(_) => Finish::Stop,
            StopReason::MaxTokens => Finish::Length,
            StopReason::ContextFull => Finish::Context,
            StopReason::Loop(_) => Finish::Loop,
            _ => Finish::Cancelled,
        }
    }

    pub(crate) fn openai(&self) -> &'static str {
        match self {
            Finish::Stop | Finish::StopString(_) | Finish::Loop => "stop",
            Finish::Calls => "tool_calls",
            Finish::Length | Finish::Context | Finish::Cancelled => "length",
        }
    }

    pub(crate) fn anthropic(&self) -> &'static str {
        match self {
            Finish::Stop | Finish::Loop => "end_turn",
            Finish::StopString(_) => "stop_sequence",
            Finish::Calls => "tool_use",
            Finish::Length | Finish::Cancelled => "max_tokens",
            Finish::Context => "model_context_window_exceeded",
        }
    }

    /// The field `x_stop_detail` of OpenAI's routes: reasons that their words for the end hide.
    pub(crate) fn detail(&self) -> Option<&'static str> {
        match self {
            Finish::Loop | Finish::Cancelled => Some(self.name()),
            _ => None,
        }
    }

    /// The word of the metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::StopString(_) => "stop_string",
            Finish::Calls => "tool_calls",
            Finish::Length => "length",
            Finish::Context => "context",
            Finish::Loop => "loop",
            Finish::Cancelled => "cancelled",
        }
    }
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) prompt: usize,
    /// Tokens of the prompt that were not computed again.
    pub(crate) cached: usize,
    /// The part of `cached` that was read from files.
    pub(crate) from_disk: usize,
    pub(crate) answer: usize,
    /// Tokens of the answer that belong to its thought.
    pub(crate) reasoning: usize,
}

impl Usage {
    /// As the chat and completion routes of OpenAI's API show it.
    pub(crate) fn openai(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.answer,
            "total_tokens": self.prompt + self.answer,
            "prompt_tokens_details": { "cached_tokens": self.cached },
            "completion_tokens_details": { "reasoning_tokens": self.reasoning },
        })
    }
}

/// Times of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timings {
    /// From the request to its slot.
    pub(crate) queued: Duration,
    /// From there to the end of the prompt.
    pub(crate) prompt: Duration,
    /// From the end of the prompt to the end of the answer.
    pub(crate) answer: Duration,
}

/// Cached and computed tokens of a prompt, with the reason for the second.
pub(crate) fn cache_text(hit: usize, miss: usize, reason: &str) -> String {
    format!("hit={hit} miss={miss} reason={reason}")
}

/// The end of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) finish: Finish,
    pub(crate) usage: Usage,
    pub(crate) timings: Timings,
    /// Why tokens of the prompt were computed.
    pub(crate) miss: &'static str,
}

impl Ending {
    /// The prompt's tokens that were cached and that were computed, with the reason.
    pub(crate) fn cache(&self) -> String {
        let Usage { prompt, cached, .. } = self.usage;
        cache_text(cached, prompt - cached, self.miss)
    }

    /// The times as llama-server shows them.
    pub(crate) fn timings(&self) -> Value {
        let ms = |time: Duration| time.as_micros() as f64 / 1e3;
        let (usage, timings) = (&self.usage, &self.timings);
        json!({
            "cache_n": usage.cached,
            "prompt_n": usage.prompt - usage.cached,
            "prompt_ms": ms(timings.prompt),
            "predicted_n": usage.answer,
            "predicted_ms": ms(timings.answer),
        })
    }
}
