//! The interface of the two readers of `tokenizer.json`.
//!
//! `BertEncoder::load` reads it with the crate `tokenizers`, the reference for such files, which knows more normalisers and
//! pre-tokenizers than BERT's. `BertEncoder::of_parts` and builds without the feature `std` read it with `pieces`, because
//! `tokenizers` brings C code and more weight than a web page should load. A test holds both to the same ids.
//!
//! **Invariant:** a text has at least 2 ids, all below the rows of the word embedding, [CLS] first and [SEP] last; texts with more
//! ids than are asked for lose their end. No padding is added.

use super::error::EncoderError;

/// Longest text that is cut into tokens, so that a hostile one costs bounded time.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// Longest `tokenizer.json`; those of multilingual encoders have 17 MB.
pub(super) const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

/// Most characters of a word that is cut into pieces, twice those of BERT: the time for a word grows with their cube.
const MAX_WORD_CHARS: usize = 200;

/// From a text to its token ids.
pub(super) trait Tokens: std::fmt::Debug + Send + Sync {
    /// The ids of a text, of which at most `most` are left, at least 2.
    ///
    /// # Errors
    /// A text over the limit, or one that the tokenizer refuses.
    fn encode(&self, text: &str, most: usize) -> Result<Vec<u32>, EncoderError>;
}

/// Refuses a text over the limit.
pub(super) fn check_length(text: &str) -> Result<(), EncoderError> {
    match text.len() > MAX_TEXT_BYTES {
        true => Err(EncoderError::TextTooLong { bytes: text.len(), limit: MAX_TEXT_BYTES }),
        false => Ok(()),
    }
}

/// Refuses a tokenizer that cuts words of more characters than [`MAX_WORD_CHARS`].
pub(super) fn check_word_chars(most: usize) -> Result<(), String> {
    match most > MAX_WORD_CHARS {
        true => Err(format!("max_input_chars_per_word is {most}, more than {MAX_WORD_CHARS}")),
        false => Ok(()),
    }
}
