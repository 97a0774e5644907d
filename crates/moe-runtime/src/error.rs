//! The error of this crate: one variant per room, each with an enum of its own. Every message says what to do.

use std::path::{Path, PathBuf};

use mla_attention::CacheError;

use crate::adapters::error::AdapterError;
use crate::forward::error::ForwardError;
use crate::load::error::LoadError;
use crate::models::error::ConfigError;
use crate::sessions::error::SessionError;
use crate::storage::error::StorageError;
use crate::text::error::TextError;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Failures of configuration, loading and running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message names its fields")]
pub enum Error {
    /// The configuration of a model cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A model's files or weights cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A batch cannot be computed.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// Packed weights cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// An adapter cannot be used.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// A tokenizer, a text or a conversation cannot be used.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A sequence cannot go on.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The file could not be read.
    #[error(transparent)]
    Source(#[from] gguf_bitnet::Error),
    /// A failure, and the model that it is about.
    #[error("{}: {error}", path.display())]
    InModel {
        /// Its file, or the configuration of its directory.
        path: PathBuf,
        /// The failure without the path.
        error: Box<Error>,
    },
}

impl From<mla_attention::Error> for Error {
    /// A full context becomes this crate's own error, so that callers match one variant.
    fn from(error: mla_attention::Error) -> Error {
        match error {
            mla_attention::Error::Cache(CacheError::Full { have, need }) => {
                SessionError::ContextFull { have, need }.into()
            }
            other => ForwardError::Attention(other).into(),
        }
    }
}

impl From<CacheError> for Error {
    fn from(error: CacheError) -> Error {
        mla_attention::Error::from(error).into()
    }
}

impl From<tl_kernels::Error> for Error {
    fn from(error: tl_kernels::Error) -> Error {
        ForwardError::Kernel(error).into()
    }
}

impl Error {
    /// Names the file or directory that the failure is about, unless it is named already.
    #[must_use]
    pub(crate) fn in_model(self, path: impl AsRef<Path>) -> Error {
        match self {
            Error::InModel { .. }
            | Error::Load(LoadError::ConfigFile { .. })
            | Error::Text(TextError::TokenizerFile { .. }) => self,
            Error::Source(error) if error.names_file() => Error::Source(error),
            // A model in memory.
            error if path.as_ref().as_os_str().is_empty() => error,
            error => Error::InModel { path: path.as_ref().to_owned(), error: Box::new(error) },
        }
    }
}
