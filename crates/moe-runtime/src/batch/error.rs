//! Reasons why a line of a batch has no answer.

use crate::error::Error;

/// A line that has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message names its fields")]
pub enum BatchError {
    #[error("{reason}; write one JSON object per line")]
    Json { reason: String },
    #[error("it has neither `prompt` nor `messages`: give one of them")]
    NoPrompt,
    #[error("it has both `prompt` and `messages`: give one of them")]
    TwoPrompts,
    #[error("`{field}` {problem}")]
    Field { field: String, problem: String },
    #[error("the model has no chat template: give `prompt` in place of `messages`")]
    NoTemplate,
    #[error(
        "the prompt has {prompt} tokens and the context {n_ctx}: shorten the prompt, or run all lines with a larger --context"
    )]
    Context { prompt: usize, n_ctx: usize },
    #[error(transparent)]
    Model(#[from] Error),
}
