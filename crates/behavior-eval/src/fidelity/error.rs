//! Errors of measurements in which a student is compared with its teacher on a text.

use crate::model::{ModelError, Role};

/// Failures of a comparison of student and teacher on a text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its variant and its fields mean")]
pub enum FidelityError {
    #[error("windows of {n_ctx} tokens are too short; use at least {min}")]
    WindowTooShort { n_ctx: usize, min: usize },
    #[error("a prefix of {prefix} tokens leaves no unscored text in windows of {n_ctx}; use longer windows")]
    PrefixTooLong { prefix: usize, n_ctx: usize },
    #[error("the text has {have} tokens, but one window needs {need}; give a longer text or shorter windows")]
    TextTooShort { have: usize, need: usize },
    #[error("a limit of 0 windows scores nothing; leave it out or use at least 1")]
    NoWindows,
    #[error(
        "token {index} of the text is {token}, but the model knows {vocab_size}; tokenize with the model's own tokenizer"
    )]
    TokenOutOfRange { index: usize, token: u32, vocab_size: usize },
    #[error("the teacher has {teacher} tokens and the student {student}; they cannot be compared")]
    VocabularyMismatch { teacher: usize, student: usize },
    #[error("the record of window {window} has {bytes} bytes where {due} are due; run its shard again")]
    Record { window: usize, bytes: usize, due: usize },
    #[error("the {role} failed in window {window}: {source}")]
    Model { role: Role, window: usize, source: ModelError },
    #[error("the {role} gave {got} in window {window} where {want} was due; its `logits` is not implemented right")]
    Contract { role: Role, window: usize, got: String, want: String },
    #[error(
        "the {role} gave logit {value} for token {token} at position {position} of window {window}; run `bitnet verify` on it"
    )]
    NotFinite { role: Role, window: usize, position: usize, token: usize, value: f32 },
}
