//! WordPiece through the crate `tokenizers`.

use std::path::Path;

use tokenizers::{ModelWrapper, Tokenizer};

use super::error::EncoderError;
use super::tokens::{Tokens, check_length, check_word_chars};

/// The tokenizer of an encoder.
pub(super) struct WordPiece {
    tokenizer: Tokenizer,
    /// The ids of an empty text: [CLS] and [SEP].
    ends: [u32; 2],
}

impl WordPiece {
    /// Reads the text of a `tokenizer.json`, which `path` names in messages; every id must lie below `rows`.
    pub(super) fn read(json: &str, path: &Path, rows: usize) -> Result<WordPiece, EncoderError> {
        let path = path.to_owned();
        let broken = |reason: String| EncoderError::Parse { path: path.clone(), reason };
        let mut tokenizer: Tokenizer = json.parse().map_err(|error: tokenizers::Error| broken(error.to_string()))?;
        if let ModelWrapper::WordPiece(model) = tokenizer.get_model() {
            check_word_chars(model.max_input_chars_per_word).map_err(broken)?;
        }
        tokenizer.with_truncation(None).map_err(|error| broken(error.to_string()))?;
        tokenizer.with_padding(None);
        if let Some(id) = tokenizer.get_vocab(true).into_values().max().filter(|&id| id as usize >= rows) {
            return Err(EncoderError::Vocabulary { path, id, rows });
        }
        // The ids that the post-processor adds stand in a list of their own, which nothing ties to the vocabulary.
        let empty = tokenizer.encode_fast("", true).map_err(|error| broken(error.to_string()))?;
        let Ok(ends) = <[u32; 2]>::try_from(empty.get_ids()) else {
            return Err(EncoderError::SpecialTokens { path, got: empty.get_ids().len() });
        };
        if let Some(&id) = ends.iter().find(|&&id| id as usize >= rows) {
            return Err(EncoderError::Vocabulary { path, id, rows });
        }
        Ok(WordPiece { tokenizer, ends })
    }
}

impl Tokens for WordPiece {
    fn encode(&self, text: &str, most: usize) -> Result<Vec<u32>, EncoderError> {
        check_length(text)?;
        let encoding = self.tokenizer.encode_fast(text, true);
        let mut ids = encoding.map_err(|error| EncoderError::Tokens { reason: error.to_string() })?.get_ids().to_vec();
        if ids.len() < 2 || [ids[0], ids[ids.len() - 1]] != self.ends {
            return Err(EncoderError::Tokens { reason: "it has no [CLS] and [SEP] at its ends".to_owned() });
        }
        if ids.len() > most {
            ids.truncate(most - 1);
            ids.push(self.ends[1]);
        }
        Ok(ids)
    }
}

impl std::fmt::Debug for WordPiece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WordPiece").field("vocabulary", &self.tokenizer.get_vocab_size(true)).finish_non_exhaustive()
    }
}
