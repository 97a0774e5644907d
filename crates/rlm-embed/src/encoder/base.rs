//! The interface of everything that turns a text into a vector.

use crate::error::Result;

/// An encoder of texts. Implemented by [`BertEncoder`](super::BertEncoder), [`HashEmbedder`](super::HashEmbedder) and
/// [`LanguageModelEmbedder`](super::LanguageModelEmbedder).
///
/// **Invariant:** the vector of a text does not depend on the other texts of the call.
pub trait BaseEmbedder {
    /// Number of values in a vector.
    fn dims(&self) -> usize;

    /// A hash of everything that decides the vectors: vectors are comparable when their embedders have one identity.
    fn identity(&self) -> [u8; 32];

    /// Bytes of memory that the embedder takes at most in calls with texts of so many tokens together, or with one text of more;
    /// `None` where it does not know.
    fn memory_bytes(&self, _tokens: usize) -> Option<u64> {
        None
    }

    /// The vectors of `texts`, `[texts, dims]`, each of Euclidean length 1. A text without any feature gives zeros.
    ///
    /// # Errors
    /// A text that the encoder cannot take.
    fn embed(&mut self, texts: &[&str]) -> Result<Vec<f32>>;
}

/// Forwards every call to the embedder behind a pointer.
macro_rules! forward {
    ($pointer:ty) => {
        impl<E: BaseEmbedder + ?Sized> BaseEmbedder for $pointer {
            fn dims(&self) -> usize {
                (**self).dims()
            }

            fn identity(&self) -> [u8; 32] {
                (**self).identity()
            }

            fn memory_bytes(&self, tokens: usize) -> Option<u64> {
                (**self).memory_bytes(tokens)
            }

            fn embed(&mut self, texts: &[&str]) -> Result<Vec<f32>> {
                (**self).embed(texts)
            }
        }
    };
}

forward!(Box<E>);
forward!(&mut E);
