//! Texts taken apart: words, sentences with their citations, JSON.

mod fields;
mod json;
mod lines;
mod sentences;
mod words;

pub use lines::LineFault;
pub use sentences::{Citation, Sentence, plain_sentences, sentences};

pub(crate) use fields::Fields;
pub(crate) use json::parse;
pub(crate) use lines::read_line;
pub(crate) use words::{contains_run, overlap, words};
