//! The tokens that may come next in an answer.

use std::fmt::Debug;

use crate::error::Result;

/// A rule that an answer has to follow, asked before each token and told each token.
///
/// A thought is free of it: the sampler neither asks nor tells while the answer is inside one.
pub trait TokenConstraint: Debug + Send {
    /// Forgets the tokens that were taken: the next one is the first of another answer.
    fn restart(&mut self);

    /// The tokens that may come next: token `i` may where bit `i % 32` of word `i / 32` is set.
    ///
    /// # Errors
    /// A rule that takes too long to follow.
    fn allowed(&mut self) -> Result<&[u32]>;

    /// Takes the token that was chosen.
    ///
    /// # Errors
    /// A token that may not come next.
    fn take(&mut self, token: u32) -> Result<()>;
}
