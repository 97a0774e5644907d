//! The trait of a model that hands out logits.

/// The error of a model.
pub type ModelError = Box<dyn std::error::Error + Send + Sync>;

/// A causal language model that can be fed tokens and asked for logits.
pub trait LanguageModel {
    /// Number of tokens, which is the length of a row of logits.
    fn vocab_size(&self) -> usize;

    /// Runs a fresh context over `tokens` and hands out, in ascending order, the row of logits of every position
    /// `from..tokens.len()`. The row of position `p` is made from `tokens[..= p]` and predicts token `p + 1`.
    ///
    /// `out` may block until another model has caught up: call it outside of any thread pool that the other model
    /// needs. The row is borrowed for the call only, so one buffer serves all of them.
    ///
    /// # Errors
    /// A model that cannot run; the measurement ends with its error.
    fn logits(&mut self, tokens: &[u32], from: usize, out: &mut dyn FnMut(usize, &[f32])) -> Result<(), ModelError>;
}
