//! The mean of a language model's final hidden states as the vector of a text.

use moe_runtime::InferenceBackend;

use super::base::BaseEmbedder;
use super::vectors::normalise;
use crate::error::Result;

/// A language model that encodes texts. Its vectors are no trained sentence vectors: they serve where no encoder is at hand.
#[derive(Debug)]
pub struct LanguageModelEmbedder<B> {
    backend: B,
    dims: usize,
    identity: [u8; 32],
}

impl<B: InferenceBackend> LanguageModelEmbedder<B> {
    /// An encoder over a loaded model, whose `identity` is a hash of its weights.
    ///
    /// # Errors
    /// When the model cannot encode a word.
    pub fn new(mut backend: B, identity: [u8; 32]) -> Result<LanguageModelEmbedder<B>> {
        let dims = backend.embed("a")?.len();
        Ok(LanguageModelEmbedder { backend, dims, identity })
    }
}

impl<B: InferenceBackend> BaseEmbedder for LanguageModelEmbedder<B> {
    fn dims(&self) -> usize {
        self.dims
    }

    fn identity(&self) -> [u8; 32] {
        self.identity
    }

    /// Each text runs alone. An empty text has no tokens and gives zeros.
    fn embed(&mut self, texts: &[&str]) -> Result<Vec<f32>> {
        let mut vectors = Vec::with_capacity(texts.len() * self.dims);
        for text in texts {
            let mut vector = match text.is_empty() {
                true => vec![0.0; self.dims],
                false => self.backend.embed(text)?,
            };
            normalise(&mut vector);
            vectors.append(&mut vector);
        }
        Ok(vectors)
    }
}
