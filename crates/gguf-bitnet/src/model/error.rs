//! Errors of models that cannot be found, or that are not the expected ones.

use std::path::PathBuf;

/// A model that cannot be found or is not the expected one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum ModelError {
    /// There is no file at the path, and no model of this name in the cache.
    #[error("there is no model `{spec}`: give an existing file or directory, or `organisation/name` of a cached model")]
    NoSuchModel { spec: String },
    /// A model name that the Hugging Face cache does not hold.
    #[error(
        "there is no file or directory `{spec}`, and no model of this name at {}: \
         download it first, this program never does",
        looked.display()
    )]
    NotCached {
        spec: String,
        /// The folder in which the cache would hold the model.
        looked: PathBuf,
    },
    /// A cached model of which files are missing.
    #[error("the cached model has no usable snapshot ({what}): download it again")]
    BrokenCache { what: &'static str },
    /// A split set, whose metadata cannot be replaced.
    #[error("the model is split into {count} files; metadata can be replaced in a single file only: merge them first")]
    SplitRewrite { count: usize },
    /// A model whose identity is not the expected one.
    #[error("the model has changed: its identity is {got}, not {expected}; evaluate it again")]
    IdentityChanged {
        /// BLAKE3 identity of the expected model.
        expected: String,
        /// BLAKE3 identity of the model found.
        got: String,
    },
}
