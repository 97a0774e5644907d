//! Suites: prompts with the chunks of text that a model may cite.
//!
//! A suite is two files of JSON lines. The suite file holds one prompt per line,
//!
//! ```text
//! {"prompt_id", "label", "system", "user", "question", "context": [chunk ids], "relevant": [chunk ids], "gold_answer"}
//! ```
//!
//! and the corpus file one chunk per line, `{"prompt_id", "chunk_id", "source", "text"}`. `label`, `relevant` and
//! `gold_answer` may be missing; fields that are not named here are ignored. Chunk ids repeat across prompts: the key of a
//! chunk is its prompt and its id together.
//!
//! **Invariant:** the `user` text of every prompt is what [`render_user`] makes of its chunks and its question, so a
//! prompt whose chunks were partly removed is worded by the same rule as the prompts of the files.

mod error;
mod fault;
mod label;
mod lines;
mod prompt;
mod prompts;
mod read;

pub use error::SuiteError;
pub use fault::SuiteFault;
pub use label::Label;
pub use prompt::{Chunk, ChunkKey, Prompt, render_user};
pub use prompts::Suite;
