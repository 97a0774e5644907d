//! Suites of prompts.

mod fault;
mod lines;
mod prompts;
mod read;

pub use fault::SuiteFault;
pub use prompts::{Chunk, ChunkKey, Label, Prompt, Suite, render_user};
