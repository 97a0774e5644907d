//! The sentence encoder beside the model; `encoder_thread` computes its vectors.

use moe_runtime::JobQueue;
use rlm_embed::encoder::BertEncoder;

use super::facts::Facts;
use crate::http::failure::Failure;

/// A loaded sentence encoder.
#[derive(Debug)]
pub(crate) struct Encoder {
    pub(crate) bert: BertEncoder,
    pub(crate) facts: Facts,
    pub(crate) queue: JobQueue,
}

impl Encoder {
    /// Texts of one request that wait at the same time.
    pub(crate) const TEXTS_AT_ONCE: usize = 16;

    /// Tokens of the texts that are encoded together, unless a single text has more: a text that arrives waits for no more than
    /// these, and so does the end of the server.
    pub(crate) const BATCH_TOKENS: usize = 512;

    /// The tokens of a text, all of which the encoder has to read.
    ///
    /// # Errors
    /// A text that is too long or cannot be cut into tokens.
    pub(crate) fn tokens(&self, text: &str) -> Result<Vec<u32>, Failure> {
        let tokens = self.bert.all_token_ids(text).map_err(|error| Failure::field("input", error.to_string()))?;
        match (tokens.len(), self.facts.n_ctx) {
            (n, n_ctx) if n > n_ctx => Err(Failure::context(n, n_ctx)),
            _ => Ok(tokens),
        }
    }
}
