//! The interface of the two readers of `tokenizer.json`.
//!
//! **Invariant:** a text has 2 to `max_tokens` ids, all below the rows of the word embedding, [CLS] first and [SEP] last; longer
//! texts lose their end. No padding is added.

use super::error::EncoderError;

/// Longest text that is cut into tokens, so that a hostile one costs bounded time.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// Longest `tokenizer.json`; those of multilingual encoders have 17 MB.
pub(super) const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

/// From a text to its token ids.
pub(super) trait Tokens: std::fmt::Debug + Send + Sync {
    /// The ids of a text.
    ///
    /// # Errors
    /// A text over the limit, or one that the tokenizer refuses.
    fn encode(&self, text: &str) -> Result<Vec<u32>, EncoderError>;
}

/// Refuses a text over the limit.
pub(super) fn check_length(text: &str) -> Result<(), EncoderError> {
    match text.len() > MAX_TEXT_BYTES {
        true => Err(EncoderError::TextTooLong { bytes: text.len(), limit: MAX_TEXT_BYTES }),
        false => Ok(()),
    }
}
