//! The reasons for which attention cannot be built or run.

use crate::kv_cache::CacheError;

/// The reasons for which attention cannot be built or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named as in the messages")]
pub enum Error {
    /// A configuration value is impossible for any weights.
    #[error("the attention setting `{field}` is {got}, but must be {expected}; correct the model's configuration")]
    Config { field: &'static str, expected: String, got: String },
    /// A weight has another shape than the configuration says. `name` is a field of [`MlaWeights`](crate::MlaWeights)
    /// or [`GqaWeights`](crate::GqaWeights); a shape is `[rows, cols]`, or `[n]` for a vector or a list of heads.
    #[error(
        "the attention weight `{name}` has the shape {got:?}, but the configuration asks for {expected:?}; the file and its configuration do not belong together"
    )]
    WeightShape { name: &'static str, expected: Vec<usize>, got: Vec<usize> },
    /// The buffer of the argument `name` has the wrong length.
    #[error("the buffer `{name}` holds {got} values, but {expected} are needed; pass a slice of exactly that length")]
    BufferLength { name: &'static str, expected: usize, got: usize },
    /// A cache cannot be created, or cannot take the tokens.
    #[error(transparent)]
    Cache(#[from] CacheError),
}
