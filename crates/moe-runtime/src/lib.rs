//! The mixture-of-experts decoder: configuration, router, experts, tokenizer, sampling, sessions.
//!
//! | from the bottom up | |
//! |---|---|
//! | [`config`], [`tensors`], [`open`] | what a model is, what its file must hold, and a path that becomes both |
//! | [`router`], [`scheduler`], [`experts`], [`ffn`] | who computes a token, and how |
//! | [`residency`] | which experts stay in memory when the file is larger |
//! | [`layer`], [`model`], [`session`] | one layer without its model, all of them, and a sequence over them |
//! | [`taps`] | where one may look in and reach in |
//! | [`tokenizer`], [`chat`], [`sampler`], [`loops`] | text to tokens and logits to text |
//! | [`generate`](mod@generate), [`backend`] | answers |
//! | [`memory`], [`traffic`] | what all that takes, and what a token reads |
//!
//! **Invariant:** a token's numbers do not depend on how the prompt was cut into batches, nor on the thread count.

pub mod backend;
pub mod chat;
pub mod config;
pub mod error;
pub mod experts;
pub mod ffn;
pub mod generate;
pub mod layer;
pub mod loops;
pub mod memory;
pub mod model;
pub mod open;
mod packing;
pub mod residency;
pub mod rng;
pub mod router;
pub mod sampler;
pub mod scheduler;
pub mod session;
pub mod taps;
pub mod tensors;
mod tile_cache;
pub mod tokenizer;
pub mod traffic;
mod weights;

pub use backend::{CraftsmanBackend, InferenceBackend, mean_hidden};
pub use chat::{ChatRequest, ChatTemplate};
pub use config::{
    Arch, AttentionConfig, Gating, GroupScore, ModelConfig, MoeConfig, Presence, RopeConfig, RopeStyle, RouterConfig,
    WeightNorm,
};
pub use error::{Error, Result, TileCacheDefect, VocabularyDefect};
pub use experts::{ExpertBank, ExpertScratch, ResidencyHook};
pub use ffn::{FfnScratch, SwiGlu};
pub use generate::{GenerateOptions, Generation, Statistics, StopReason, generate};
pub use layer::{Batch, DecoderLayer, FeedForward, LayerScratch};
pub use loops::{LoopConfig, LoopDetector, TokenLoop};
pub use memory::MemoryPlan;
pub use model::{CraftsmanModel, LoadOptions};
pub use open::{ModelFiles, mapper};
pub use packing::Packed;
pub use residency::{
    CachePolicy, CacheStatistics, ExpertCache, ExpertKey, ExpertPredictor, FilePages, Prefetcher, Residency,
    ResidencyOptions,
};
pub use rng::SplitMix64;
pub use router::{MoeRouter, RouterScratch, RoutingDecision};
pub use sampler::{Sampler, SamplerConfig};
pub use scheduler::MoeBatchScheduler;
pub use session::{LogitsSink, Session};
pub use taps::{At, ExpertId, Taps};
pub use tensors::{expected_layer_tensors, expected_tensors};
pub use tile_cache::TileCache;
pub use tokenizer::{ControlTokens, TextStream, Tokenizer};
pub use traffic::weight_bytes_per_token;
