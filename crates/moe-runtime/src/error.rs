//! The error of this crate: one variant per room, each with an enum of its own. Every message says what to do.

use std::path::{Path, PathBuf};

use mla_attention::CacheError;

use crate::forward::error::ForwardError;
use crate::load::error::LoadError;
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
    /// `config.json` is no JSON object.
    #[error("config.json is not readable JSON ({reason}); copy it again from the checkpoint's source")]
    ConfigJson { reason: String },
    /// A configuration key that the architecture cannot do without is absent.
    #[error("the configuration lacks `{key}`, which {arch} needs; add it or convert the model again")]
    MissingKey { key: String, arch: &'static str },
    /// A configuration value breaks a rule.
    #[error("configuration value `{key}` = {value} is not usable: {rule}")]
    BadValue { key: String, value: String, rule: String },
    /// Two keys state different things.
    #[error("the configuration contradicts itself: `{first}` and `{second}` disagree ({detail}); correct one of them")]
    Contradiction { first: String, second: String, detail: String },
    /// A model of another family.
    #[error("architecture `{got}` is not supported; this runtime knows {known}")]
    UnsupportedArchitecture { got: String, known: &'static str },
    /// A feature of the family that this runtime refuses rather than gets wrong.
    #[error("{feature} is not supported; {remedy}")]
    Unsupported { feature: String, remedy: &'static str },
    /// Position scaling, which would change every angle.
    #[error("position scaling `{kind}` (`{key}`) is not supported; use a model with plain rotary positions")]
    RopeScaling { key: String, kind: String },
    /// A model's files or weights cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A batch cannot be computed.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// Packed weights cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
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
    pub fn in_model(self, path: impl AsRef<Path>) -> Error {
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
