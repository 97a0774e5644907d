//! Models that cannot be found or are not the expected one.

use std::path::PathBuf;

/// A model that cannot be found or is not the expected one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum ModelError {
    /// Nothing at the path, and no model of this name in the cache.
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
        /// Where the cache would hold it.
        looked: PathBuf,
    },
    /// A cached model with missing files.
    #[error("the cached model has no usable snapshot ({what}): download it again")]
    BrokenCache { what: &'static str },
    /// A split set, whose metadata cannot be replaced.
    #[error("the model is split into {count} files; metadata can be replaced in a single file only: merge them first")]
    SplitRewrite { count: usize },
    /// The file holds another model than the expected one.
    #[error("the model has changed: its identity is {got}, not {expected}; evaluate it again")]
    IdentityChanged {
        /// BLAKE3 of the expected model.
        expected: String,
        /// BLAKE3 of the model in the file.
        got: String,
    },
}
