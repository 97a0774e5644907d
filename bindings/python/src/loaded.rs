//! The parts of a loaded model that its sessions share.

use std::sync::{Arc, Mutex};

use moe_runtime::{ChatTemplate, CraftsmanModel, Error, ModelFiles, SamplerConfig, Tokenizer};

use crate::errors::locked;

/// A model in memory, with everything that belongs to it.
pub(crate) struct Loaded {
    pub(crate) files: ModelFiles,
    pub(crate) model: Arc<CraftsmanModel>,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) template: Option<ChatTemplate>,
    pub(crate) sampling: SamplerConfig,
    /// Tokens of a session that does not say otherwise.
    pub(crate) n_ctx: usize,
    /// The identity of the files, once it was asked for.
    pub(crate) identity: Mutex<Option<[u8; 32]>>,
}

impl Loaded {
    /// The identity of the files; reads them the first time.
    pub(crate) fn identity(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<[u8; 32], Error> {
        let mut known = locked(&self.identity);
        if let Some(identity) = *known {
            return Ok(identity);
        }
        Ok(*known.insert(self.files.identity_bytes(progress)?))
    }
}
