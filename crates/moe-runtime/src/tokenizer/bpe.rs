//! Byte-level byte-pair encoding of text without whole tokens, by the `tokenizers` crate.
//!
//! Without the feature `tokenizers` nothing can be constructed here, so only the byte tokenizer remains.

use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};

#[cfg(feature = "tokenizers")]
pub(super) use with_crate::Bpe;
#[cfg(not(feature = "tokenizers"))]
pub(super) use without_crate::Bpe;

#[cfg(feature = "tokenizers")]
mod with_crate {
    use tokenizers::models::bpe::BPE;
    use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

    use super::{Error, Result, Vocabulary};

    /// The encoder. It holds ordinary tokens only.
    pub(in super::super) struct Bpe {
        inner: Tokenizer,
    }

    impl Bpe {
        /// Builds the encoder of a vocabulary that passed its checks.
        ///
        /// # Errors
        /// [`Error::Unsupported`] for an expression that does not compile.
        pub(in super::super) fn new(vocabulary: &Vocabulary) -> Result<Self> {
            let refuse = |what: &str, reason: &dyn std::fmt::Display| Error::Unsupported {
                feature: format!("the {what} in {} ({reason})", vocabulary.origin),
                remedy: "use a checkpoint with a byte-level BPE tokenizer",
            };
            let tokens = vocabulary.bpe_tokens().into_iter().collect::<tokenizers::models::bpe::Vocab>();
            let model = BPE::builder()
                .vocab_and_merges(tokens, vocabulary.merges.clone())
                .ignore_merges(vocabulary.ignore_merges)
                .build()
                .map_err(|e| refuse("list of merges", &e))?;
            let (pre_tokenizer, normalizer) = vocabulary.pre.to_json();
            let pre_tokenizer: PreTokenizerWrapper =
                serde_json::from_value(pre_tokenizer).map_err(|e| refuse("pre-tokenizer", &e))?;
            let normalizer: Option<NormalizerWrapper> =
                serde_json::from_value(normalizer).map_err(|e| refuse("normalizer", &e))?;
            let mut inner = Tokenizer::new(model);
            inner.with_pre_tokenizer(Some(pre_tokenizer));
            inner.with_normalizer(normalizer).map_err(|e| refuse("normalizer", &e))?;
            Ok(Self { inner })
        }

        /// Appends the ids of a text.
        pub(in super::super) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
            let encoding = self.inner.encode_fast(text, false).map_err(|e| Error::Encode { reason: e.to_string() })?;
            ids.extend_from_slice(encoding.get_ids());
            Ok(())
        }
    }
}

#[cfg(not(feature = "tokenizers"))]
mod without_crate {
    use super::{Error, Result, Vocabulary};

    /// Never constructed.
    pub(in super::super) enum Bpe {}

    impl Bpe {
        /// # Errors
        /// Always [`Error::Unsupported`].
        pub(in super::super) fn new(vocabulary: &Vocabulary) -> Result<Self> {
            Err(Error::Unsupported {
                feature: format!("the byte-level BPE tokenizer in {}", vocabulary.origin),
                remedy: "build with the feature `tokenizers` of moe-runtime",
            })
        }

        pub(in super::super) fn encode(&self, _: &str, _: &mut Vec<u32>) -> Result<()> {
            match *self {}
        }
    }
}
