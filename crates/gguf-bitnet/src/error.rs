//! Everything that can be wrong with a model file, an argument or the disk: one enum per room, nested here.
//!
//! A defect inside a tensor is wrapped in [`Error::InTensor`], one inside a file in
//! [`Error::InFile`], so the sentence a user reads names file, tensor and remedy;
//! [`Error::root`] is the defect itself.

use std::io;
use std::path::{Path, PathBuf};

use crate::formats::FormatError;
use crate::gguf::GgufError;
use crate::model::ModelError;
use crate::names::NamesError;
use crate::safetensors::SafetensorsError;
use crate::shown::Shown;
use crate::source::SourceError;
use crate::store::StoreError;

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A defect of a file, an argument or the environment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the nested enums and the sentences say what they are")]
pub enum Error {
    /// The defect lies in this file.
    #[error("{}: {error}", path.display())]
    InFile {
        /// The file that was read or written.
        path: PathBuf,
        error: Box<Error>,
    },
    /// The defect lies in this tensor.
    #[error("tensor `{}`: {error}", Shown(tensor))]
    InTensor {
        /// Name as the file spells it.
        tensor: String,
        error: Box<Error>,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Gguf(#[from] GgufError),
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    #[error(transparent)]
    Names(#[from] NamesError),
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl Error {
    /// The defect itself, without the file and the tensor it lies in.
    pub fn root(&self) -> &Error {
        match self {
            Error::InFile { error, .. } | Error::InTensor { error, .. } => error.root(),
            other => other,
        }
    }

    /// The tensor the defect lies in, if it lies in one.
    pub fn tensor(&self) -> Option<&str> {
        match self {
            Error::InFile { error, .. } => error.tensor(),
            Error::InTensor { tensor, .. } => Some(tensor),
            _ => None,
        }
    }

    /// Whether the message names a file already.
    pub fn names_file(&self) -> bool {
        matches!(self, Error::InFile { .. } | Error::Store(StoreError::Io { .. }))
    }

    /// Names the file the defect lies in, unless the message names one already. An empty path stands for bytes in memory,
    /// which have no name.
    #[must_use]
    pub fn in_file(self, path: impl AsRef<Path>) -> Error {
        if self.names_file() || path.as_ref().as_os_str().is_empty() {
            return self;
        }
        Error::InFile { path: path.as_ref().to_owned(), error: Box::new(self) }
    }

    /// Names the tensor the defect lies in.
    #[must_use]
    pub fn in_tensor(self, tensor: impl Into<String>) -> Error {
        Error::InTensor { tensor: tensor.into(), error: Box::new(self) }
    }

    /// For `map_err`: names the file and the action that failed, such as `open`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        move |source| StoreError::Io { action, path: path.as_ref().to_owned(), source }.into()
    }
}

/// For `?` on writes to a stream.
impl From<io::Error> for Error {
    fn from(source: io::Error) -> Error {
        StoreError::WriteStream { source }.into()
    }
}

/// The methods of [`Error`] that name the place, for the errors of a room.
pub(crate) trait Locate: Into<Error> {
    /// [`Error::in_file`] of the crate's error.
    fn in_file(self, path: impl AsRef<Path>) -> Error {
        self.into().in_file(path)
    }

    /// [`Error::in_tensor`] of the crate's error.
    fn in_tensor(self, tensor: impl Into<String>) -> Error {
        self.into().in_tensor(tensor)
    }
}

impl<E: Into<Error>> Locate for E {}
