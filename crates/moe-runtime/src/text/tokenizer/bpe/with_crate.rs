//! The encoder of the crate `tokenizers`.

use tokenizers::models::bpe::BPE;
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

use crate::error::{Error, Result};
use crate::text::error::TextError;
use crate::text::tokenizer::vocabulary::Vocabulary;

/// The encoder. It holds ordinary tokens only.
pub(crate) struct Bpe {
    inner: Tokenizer,
}

impl Bpe {
    /// Builds the encoder of a vocabulary that passed its checks.
    ///
    /// # Errors
    /// [`TextError::Unsupported`] for an expression that does not compile.
    pub(crate) fn new(vocabulary: &Vocabulary) -> Result<Self> {
        let refuse = |what: &str, reason: &dyn std::fmt::Display| {
            Error::Text(TextError::Unsupported {
                feature: format!("the {what} in {} ({reason})", vocabulary.origin),
                remedy: "use a checkpoint with a byte-level BPE tokenizer",
            })
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
    pub(crate) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|e| Error::Text(TextError::Encode { reason: e.to_string() }))?;
        ids.extend_from_slice(encoding.get_ids());
        Ok(())
    }
}
