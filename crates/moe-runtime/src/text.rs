//! Text to tokens and back: tokenizer, chat template, and the parser of answers.

pub(crate) mod chat;
pub(crate) mod error;
pub(crate) mod output;
pub(crate) mod prompt;
pub(crate) mod tokenizer;
