//! The crate's one error type.

use crate::CacheType;

/// Why attention could not be built or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration value is impossible, whatever the weights are.
    #[error("the attention setting `{field}` is {got}, but must be {expected}; correct the model's configuration")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A weight has another shape than the configuration says.
    #[error(
        "the attention weight `{name}` has the shape {got:?}, but the configuration asks for {expected:?}; the file and its configuration do not belong together"
    )]
    WeightShape {
        /// Name of the weight, as in [`MlaWeights`](crate::MlaWeights) or
        /// [`GqaWeights`](crate::GqaWeights).
        name: &'static str,
        /// `[rows, cols]`, or `[n]` for a vector or a list of heads.
        expected: Vec<usize>,
        /// What was given.
        got: Vec<usize>,
    },
    /// A caller's buffer has the wrong length.
    #[error("the buffer `{name}` holds {got} values, but {expected} are needed; pass a slice of exactly that length")]
    BufferLength {
        /// Which argument.
        name: &'static str,
        /// Values needed.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// The tokens do not fit the cache any more. Nothing was appended.
    #[error("the context holds {have} tokens, but {need} are needed; start with a larger context or shorten the input")]
    ContextFull {
        /// Tokens the cache can hold.
        have: usize,
        /// Tokens it would have to hold.
        need: usize,
    },
    /// A cache that was made for another kind or shape of attention.
    #[error(
        "this layer needs a cache of {expected}, but was given one of {got}; make it with `Attention::cache_shape`"
    )]
    CacheMismatch {
        /// The layer's own cache shape, in words.
        expected: String,
        /// The given cache's shape, in words.
        got: String,
    },
    /// A number type that caches of this kind do not come in.
    #[error("{shape} cannot be cached as {ty}, which is for latent attention only; choose f16 or f32")]
    CacheType {
        /// The number type asked for.
        ty: CacheType,
        /// The shape of the cache, in words.
        shape: String,
    },
    /// The memory for a cache could not be had.
    #[error("a cache of {n_ctx} tokens needs {bytes} bytes, which cannot be allocated; choose a smaller context")]
    CacheMemory {
        /// Tokens asked for.
        n_ctx: usize,
        /// Bytes that takes (`u128::MAX` if not even that can be said).
        bytes: u128,
    },
}
