//! Multi-head latent attention and grouped-query attention with their caches.
//!
//! | room | contents |
//! |---|---|
//! | `mla` | latent attention: its dimensions, its weights, its forward pass |
//! | `gqa` | grouped-query attention: the same three |
//! | `rope` | rotary position embedding |
//! | `kv_cache` | the rows that attention keeps of earlier positions, in blocks of 64: F32, F16 or INT8 |
//! | `segments` | the rows of a batch by sequence |
//! | `spans` | softmax attention over a cache in spans of 64 positions, shared by both kinds |
//! | `attention` | a layer of either kind behind one [`Attention::forward`] |
//!
//! The tests compare both kinds with attention over expanded keys and values in plain f64 loops (`tests/it/expanded.rs`).
//!
//! **Invariant**: this crate knows nothing of experts, of the norms around a layer, or of files: weights come in as
//! [`tl_kernels::Linear`], tokens as slices of the normed residual stream.
//!
//! **Invariant**: a token's output has the same bits whether it came alone, in a chunk, in one batch with all others or
//! with the tokens of other sequences, and on any number of threads.

mod attention;
mod checks;
mod error;
mod gqa;
mod inner;
mod kv_cache;
mod mla;
mod project;
mod rope;
mod segments;
mod spans;

pub use attention::{Attention, AttentionScratch};
pub use error::Error;
pub use gqa::{GqaAttention, GqaConfig, GqaWeights};
pub use inner::InnerProjection;
pub use kv_cache::{CacheBlock, CacheError, CacheLayout, CacheShape, CacheType, CompressedMlaCache};
pub use mla::{MlaAttention, MlaConfig, MlaWeights, QueryProjection};
pub use project::{AttentionAdapter, Projector};
pub use rope::{Rope, RopeStyle};
pub use segments::{Segment, Segments, Sequences};

/// The examples of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
