//! Multi-head latent attention and grouped-query attention with their caches.
//!
//! | room | contents |
//! |---|---|
//! | `mla` | latent attention: its dimensions, its weights, its forward pass |
//! | `gqa` | grouped-query attention: the same three |
//! | `rope` | rotary position embedding |
//! | `kv_cache` | the rows that attention keeps of earlier positions: F32, F16 or INT8 |
//! | `spans` | softmax attention over a cache in spans of 64 positions, shared by both kinds |
//! | `attention` | a layer of either kind behind one [`Attention::forward`] |
//!
//! The tests compare both kinds with attention over expanded keys and values in plain f64 loops (`tests/it/expanded.rs`).
//!
//! **Invariant**: this crate knows nothing of experts, of the norms around a layer, or of files: weights come in as
//! [`tl_kernels::Linear`], tokens as slices of the normed residual stream.
//!
//! **Invariant**: a token's output has the same bits whether it came alone, in a chunk or in one batch with all others,
//! and on any number of threads.

mod attention;
mod checks;
mod error;
mod gqa;
mod inner;
mod kv_cache;
mod mla;
mod project;
mod rope;
mod spans;

pub use attention::{Attention, AttentionScratch};
pub use error::Error;
pub use gqa::{GqaAttention, GqaConfig, GqaWeights};
pub use inner::InnerProjection;
pub use kv_cache::{CacheError, CacheShape, CacheType, CompressedMlaCache, KvCache, LatentCache, LayerCache};
pub use mla::{MlaAttention, MlaConfig, MlaWeights, QueryProjection};
pub use rope::{Rope, RopeStyle};
