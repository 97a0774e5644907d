//! The recursive embedder: a short loop around an encoder that reads a chunk together with its neighbours.
//!
//! ```text
//! 1. base = encode(text)                                   merged = base
//! 2. the k nearest chunks to merged, each with its relation to the text
//! 3. context = encode(text with what its agreeing neighbours add)
//! 4. anti = the vector of the nearest chunk that contradicts the text
//! 5. next = normalise(w0 base + w1 context + w2 anti); stop when it hardly moved, else from 2 again
//! ```
//! `config.rs` has the variants, weights and presets, `context.rs` step 3, `outcome.rs` what the loop tells beside the vector.

mod config;
mod context;
mod embedder;
mod outcome;

pub use config::{MergeWeights, RecursionConfig, Variant};
pub use embedder::{Corpus, RlmEmbedder};
pub use outcome::{RlmEmbedding, StopReason, UsedNeighbor};
