//! Failures of making an adapter.

/// Models that no adapter can be made for, or feedback that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named as in the messages")]
pub enum AdaptError {
    /// A student without matrices that lost precision.
    #[error("the student has no ternary feed-forward matrix, so there is nothing that an adapter could make up for")]
    NothingTernary,
    /// A rank that the matrices do not have.
    #[error("a rank of {rank} is not possible for matrices of this student; choose 1 to {limit}")]
    Rank { rank: usize, limit: usize },
    /// A correction without tokens in front of it or in it.
    #[error("a correction needs a prompt and an answer of at least one token each")]
    EmptyFeedback,
}
