//! Text to tokens and back: tokenizer and chat template.

pub(crate) mod chat;
pub(crate) mod error;
pub(crate) mod prompt;
pub(crate) mod tokenizer;
