//! Failures of the policy store.

use std::path::{Path, PathBuf};

/// A policy store that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its variant and its fields mean")]
pub enum PolicyError {
    #[error("{path} is in use by another program: wait for it, or name another store")]
    InUse { path: PathBuf },
    #[error("{path} cannot be used as a policy store: {reason}; name another file, or move this one away")]
    Unusable { path: PathBuf, reason: String },
}

impl PolicyError {
    /// The failure of the store at `path`.
    pub(super) fn at<E: Into<redb::Error>>(path: &Path) -> impl Fn(E) -> Self {
        move |error| match error.into() {
            redb::Error::DatabaseAlreadyOpen => Self::InUse { path: path.to_owned() },
            error => Self::Unusable { path: path.to_owned(), reason: error.to_string() },
        }
    }
}
