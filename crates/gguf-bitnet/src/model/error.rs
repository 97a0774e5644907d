//! Models that cannot be found or are not the one that was meant.

use std::path::PathBuf;

/// A model that cannot be found or is not the expected one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum ModelError {
    /// Nothing at the path, and no model of this name in the cache.
    #[error("there is no model `{spec}`: give an existing file or directory, or `organisation/name` of a cached model")]
    NoSuchModel { spec: String },
    /// A name of the Hugging Face cache that is not there.
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
    /// A cached model whose files are not all there.
    #[error("the cached model has no usable snapshot ({what}): download it again")]
    BrokenCache { what: &'static str },
    /// A set whose metadata stand in its first part only.
    #[error("the model is split into {count} files; metadata can be replaced in a single file only: merge them first")]
    SplitRewrite { count: usize },
    /// Not the model that was meant.
    #[error("the model has changed: its identity is {got}, not {expected}; evaluate it again")]
    IdentityChanged {
        /// BLAKE3 of the model that was meant.
        expected: String,
        /// That of the file.
        got: String,
    },
}
