//! Text to the token ids of a BERT encoder, through `tokenizer.json`.
//!
//! **Invariant:** a text has 2 to `max_tokens` ids, all below the rows of the word embedding, [CLS] first and [SEP] last; longer
//! texts lose their end. No padding is added.

use std::path::Path;

use gguf_bitnet::read_text;
use tokenizers::{Tokenizer, TruncationParams};

use super::error::EncoderError;
use crate::error::Result;

/// Longest text that is cut into tokens, so that a hostile one costs bounded time.
const MAX_TEXT_BYTES: usize = 1 << 20;
/// Longest `tokenizer.json`; those of multilingual encoders have 17 MB.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

/// The tokenizer of an encoder.
pub(super) struct WordPiece {
    tokenizer: Tokenizer,
    /// The ids of an empty text: [CLS] and [SEP].
    ends: [u32; 2],
}

impl WordPiece {
    /// Reads `tokenizer.json` in `dir`; every id must lie below `rows`. Also returns the text of the file.
    pub(super) fn read(dir: &Path, max_tokens: usize, rows: usize) -> Result<(WordPiece, String)> {
        let path = dir.join("tokenizer.json");
        let text = read_text(&path, MAX_TOKENIZER_BYTES)?;
        let broken = |reason: String| EncoderError::Parse { path: path.clone(), reason };
        let mut tokenizer: Tokenizer = text.parse().map_err(|error: tokenizers::Error| broken(error.to_string()))?;
        let params = TruncationParams { max_length: max_tokens, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(params)).map_err(|error| broken(error.to_string()))?;
        tokenizer.with_padding(None);
        if let Some(id) = tokenizer.get_vocab(true).into_values().max().filter(|&id| id as usize >= rows) {
            return Err(EncoderError::Vocabulary { path, id, rows }.into());
        }
        // The ids that the post-processor adds stand in a list of their own, which nothing ties to the vocabulary.
        let empty = tokenizer.encode_fast("", true).map_err(|error| broken(error.to_string()))?;
        let Ok(ends) = <[u32; 2]>::try_from(empty.get_ids()) else {
            return Err(EncoderError::SpecialTokens { path, got: empty.get_ids().len() }.into());
        };
        if let Some(&id) = ends.iter().find(|&&id| id as usize >= rows) {
            return Err(EncoderError::Vocabulary { path, id, rows }.into());
        }
        Ok((WordPiece { tokenizer, ends }, text))
    }

    /// The ids of a text.
    ///
    /// # Errors
    /// A text over the limit, or one that the tokenizer refuses.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, EncoderError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(EncoderError::TextTooLong { bytes: text.len(), limit: MAX_TEXT_BYTES });
        }
        let encoding = self.tokenizer.encode_fast(text, true);
        let ids = encoding.map_err(|error| EncoderError::Tokens { reason: error.to_string() })?.get_ids().to_vec();
        match ids.len() >= 2 && [ids[0], ids[ids.len() - 1]] == self.ends {
            true => Ok(ids),
            false => Err(EncoderError::Tokens { reason: "it has no [CLS] and [SEP] at its ends".to_owned() }),
        }
    }
}

impl std::fmt::Debug for WordPiece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WordPiece").field("vocabulary", &self.tokenizer.get_vocab_size(true)).finish_non_exhaustive()
    }
}
