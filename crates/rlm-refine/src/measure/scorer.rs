//! A model as the fidelity figures see it: tokens in, rows of logits out.

use std::sync::Arc;

use behavior_eval::model::{LanguageModel, ModelError};
use mla_attention::CacheType;
use moe_runtime::adapters::AdapterSlot;
use moe_runtime::{CraftsmanModel, Session};

use super::error::Result;

/// Most tokens per batch: larger batches run faster and give the same bits.
const BATCH_TOKENS: usize = 256;

/// Scores windows of text with a loaded model.
#[derive(Debug)]
pub struct TextScorer {
    session: Session,
    vocab_size: usize,
}

impl TextScorer {
    /// A scorer of windows of at most `n_ctx` tokens.
    ///
    /// # Errors
    /// A window that is longer than the model's context, and a cache type that the model does not have.
    pub fn new(model: Arc<CraftsmanModel>, n_ctx: usize, kv: CacheType) -> Result<Self> {
        let vocab_size = model.config().vocab;
        let session = Session::new(model, n_ctx, kv)?.with_chunk(n_ctx.min(BATCH_TOKENS));
        Ok(Self { session, vocab_size })
    }

    /// The same scorer with the adapters of `slot`.
    #[must_use]
    pub fn with_adapters(self, slot: AdapterSlot) -> Self {
        Self { session: self.session.with_adapters(slot), ..self }
    }
}

impl LanguageModel for TextScorer {
    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn logits(&mut self, tokens: &[u32], from: usize, out: &mut dyn FnMut(usize, &[f32])) -> Result<(), ModelError> {
        self.session.reset();
        self.session.step_rows(tokens, from, &mut (), &mut |position, row| {
            out(position, row);
            Ok(())
        })?;
        Ok(())
    }
}
