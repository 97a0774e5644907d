//! Multi-head latent attention and grouped-query attention with their caches.
//!
//! | file | what |
//! |---|---|
//! | [`MlaConfig`], [`GqaConfig`] | dimensions |
//! | [`Rope`] | rotary positions, neighbours or halves |
//! | [`LatentCache`], [`KvCache`], [`LayerCache`], [`CompressedMlaCache`] | what is remembered |
//! | [`MlaAttention`], [`GqaAttention`], [`Attention`] | the forward pass of a layer |
//! | [`expanded`] | the same mathematics in plain f64 loops, as a test oracle |
//!
//! **Invariant**: this crate knows nothing of experts, layers' norms or files: weights come in as
//! [`tl_kernels::Linear`], tokens as slices of the normed residual stream.
//!
//! **Invariant**: a token's output has the same bits whether it came alone, in a chunk or in one
//! batch with all others, and on however many threads.

mod attention;
mod cache;
mod config;
mod error;
pub mod expanded;
mod float_tiles;
mod gqa;
mod int8_tiles;
mod mla;
mod plane;
mod quantized;
mod rope;
mod tiles;
mod weights;

pub use attention::{Attention, AttentionScratch};
pub use cache::{CacheShape, CacheType, CompressedMlaCache, KvCache, LatentCache, LayerCache};
pub use config::{GqaConfig, MlaConfig};
pub use error::Error;
pub use gqa::{GqaAttention, GqaWeights};
pub use mla::{MlaAttention, MlaWeights, QueryProjection};
pub use rope::{Rope, RopeStyle};
