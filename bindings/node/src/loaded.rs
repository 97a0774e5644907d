//! The parts of a loaded model that its sequences share.

use std::sync::Arc;

use moe_runtime::{ChatTemplate, CraftsmanModel, SamplerConfig, Tokenizer};

/// A model in memory, with everything that belongs to it.
pub struct Loaded {
    pub(crate) model: Arc<CraftsmanModel>,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) template: Option<ChatTemplate>,
    pub(crate) sampling: SamplerConfig,
    /// Tokens of a context that does not say otherwise.
    pub(crate) n_ctx: usize,
}
