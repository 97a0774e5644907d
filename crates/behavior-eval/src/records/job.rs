//! Resumable jobs whose name is the hash of their manifest: recordings and measurements.
//!
//! **Invariant:** such a job never has another manifest, so one that says otherwise is damaged.

use std::path::Path;

use gguf_bitnet::{Job, StoreError};
use serde_json::Value;

use super::error::RecordError;
use crate::{Error, Result};

/// Starts the job at `path`, or continues it. Its folder is made as needed.
pub(super) fn open(path: &Path, manifest: &Value) -> Result<Job> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|source| Error::File { path: folder.to_owned(), source })?;
    }
    Job::open(path, manifest, false).map_err(|error| {
        let reason = match error.root() {
            gguf_bitnet::Error::Store(StoreError::JobDamaged { what }) => (*what).to_owned(),
            gguf_bitnet::Error::Store(StoreError::ManifestMismatch { key, stored, given }) => {
                format!("its `{key}` is {stored} where {given} is due")
            }
            _ => return error.into(),
        };
        Error::Records(RecordError::Journal { path: path.to_owned(), reason })
    })
}
