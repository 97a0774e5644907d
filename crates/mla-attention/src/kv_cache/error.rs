//! The reasons for which a cache cannot be created or cannot take tokens.

/// The reasons for which a cache cannot be created or cannot take tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named as in the messages")]
pub enum CacheError {
    /// The tokens exceed the room that is left in the cache. Nothing was appended.
    #[error("the context holds {have} tokens, but {need} are needed; start with a larger context or shorten the input")]
    Full { have: usize, need: usize },
    /// The cache was made for another kind or shape of attention.
    #[error(
        "this layer needs a cache of {expected}, but was given one of {got}; make it with the shapes and the type of the model"
    )]
    Mismatch { expected: String, got: String },
    /// The memory for a cache could not be reserved. `bytes` saturates at `u128::MAX`.
    #[error("a cache of {n_ctx} tokens needs {bytes} bytes, which cannot be allocated; choose a smaller context")]
    Memory { n_ctx: usize, bytes: u128 },
    /// A position would hold no value, or more than fit the address space.
    #[error("a cached row of {field} = {got} values is impossible; correct the model's configuration")]
    RowWidth { field: &'static str, got: String },
    /// The appended values are not a whole number of rows, or keys and values differ in number.
    #[error("the buffer `{name}` holds {got} values, but {expected} are needed; pass a slice of exactly that length")]
    BufferLength { name: &'static str, expected: usize, got: usize },
}
