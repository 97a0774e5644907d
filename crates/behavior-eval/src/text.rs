//! Texts taken apart: words, sentences with their citations, JSON.

mod json;
mod sentences;
mod words;

pub use sentences::{Citation, Sentence, sentences};

pub(crate) use json::{JsonFault, parse};
pub(crate) use sentences::plain_sentences;
pub(crate) use words::{contains_run, overlap, words};
