//! The mixture-of-experts decoder: configuration, router, experts, tokenizer, sampling, sessions.
//!
//! | room | |
//! |---|---|
//! | `models` | what a model is: its configuration, and the tensors that its file must hold |
//! | `load` | from a path to weights in memory, and what they take there |
//! | `forward` | the forward pass: a model, its layers, and what a layer computes with |
//! | `storage` | where weights lie in memory: packed tiles, their cache on disk, experts larger than memory |
//! | `text` | text to tokens and back: tokenizer and chat template |
//! | `sessions` | sequences over a model: a session, the choice of tokens, whole answers |
//!
//! **Invariant:** a token's numbers do not depend on how the prompt was cut into batches, nor on the thread count.

mod error;
pub mod forward;
mod load;
pub mod models;
mod rng;
mod sessions;
pub mod storage;
mod text;

pub use error::{Error, Result, VocabularyDefect};
pub use forward::model::CraftsmanModel;
pub use load::files::{ModelFiles, mapper};
pub use load::loader::LoadOptions;
pub use load::memory_plan::MemoryPlan;
pub use load::weight_reads::weight_bytes_per_token;
pub use rng::SplitMix64;
pub use sessions::backend::{CraftsmanBackend, InferenceBackend, mean_hidden};
pub use sessions::generate::{GenerateOptions, Generation, Statistics, StopReason, generate};
pub use sessions::loops::{LoopConfig, LoopDetector, TokenLoop};
pub use sessions::sampler::{Sampler, SamplerConfig, greedy};
pub use sessions::session::{LogitsSink, Session};
pub use text::chat::{ChatRequest, ChatTemplate};
pub use text::tokenizer::{ControlTokens, SpecialIds, TextStream, TokenType, Tokenizer, gguf_entries};
