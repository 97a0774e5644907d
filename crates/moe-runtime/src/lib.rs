//! The mixture-of-experts decoder: configuration, router, experts, tokenizer, sampling, sessions.
//!
//! From the bottom up: [`config`] says what a model is, [`router`] who computes what, [`ffn`] and [`experts`] what they
//! compute, and [`taps`] where one may look in.
//!
//! **Invariant:** a token's numbers do not depend on how the prompt was cut into batches, nor on the thread count.

pub mod chat;
pub mod config;
pub mod error;
pub mod experts;
pub mod ffn;
pub mod loops;
pub mod rng;
pub mod router;
pub mod sampler;
pub mod taps;
pub mod tokenizer;

pub use chat::{ChatRequest, ChatTemplate};
pub use config::{
    Arch, AttentionConfig, Gating, GroupScore, ModelConfig, MoeConfig, Presence, RopeConfig, RopeStyle, RouterConfig,
    WeightNorm,
};
pub use error::{Error, Result, VocabularyDefect};
pub use experts::{ExpertBank, ExpertScratch, ResidencyHook};
pub use ffn::{FfnScratch, SwiGlu};
pub use loops::{LoopConfig, LoopDetector, TokenLoop};
pub use rng::SplitMix64;
pub use router::{MoeRouter, RouterScratch, RoutingDecision};
pub use sampler::{Sampler, SamplerConfig};
pub use taps::{At, ExpertId, Taps};
pub use tokenizer::{ControlTokens, TextStream, Tokenizer};
