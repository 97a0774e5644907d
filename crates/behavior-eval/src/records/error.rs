//! Errors of records on disk.

use std::path::{Path, PathBuf};

use super::format::{MAGIC, TRACE_VERSION};
use crate::text::LineFault;

/// Records on disk that are refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its variant and its fields mean")]
pub enum RecordError {
    #[error("{} line {line}: {defect}", path.display())]
    Trace { path: PathBuf, line: u64, defect: TraceDefect },
    #[error(
        "the traces part ways: the first has {first} where the second has {second}; compare traces of the same suite \
         and teacher"
    )]
    TraceMismatch { first: String, second: String },
    #[error("{}: {defect}; remove its folder to record it again", path.display())]
    Artifact { path: PathBuf, defect: ArtifactDefect },
    #[error("the recording was begun with prompt {recorded} where {given} is given now; give the same suite")]
    PromptOrder { recorded: String, given: String },
    #[error("{}.partial is damaged ({reason}); remove it to start over", path.display())]
    Journal { path: PathBuf, reason: String },
}

/// Why an artifact is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its variant and its fields mean")]
pub enum ArtifactDefect {
    #[error("it does not begin with {}: it is no artifact, or one of another version", String::from_utf8_lossy(MAGIC))]
    NotAnArtifact,
    #[error("its {what} claims {claimed} bytes where {possible} are possible")]
    Length { what: &'static str, claimed: u64, possible: u64 },
    #[error("its {what} is damaged: {reason}")]
    Damaged { what: &'static str, reason: String },
    #[error("it was recorded with {what} {stored}, but {wanted} is asked for")]
    Foreign { what: String, stored: String, wanted: String },
    #[error("it belongs into a folder named {key}, not {folder}")]
    Misplaced { key: String, folder: String },
    #[error("column {column} of prompt {prompt_id} is damaged: {reason}")]
    Column { prompt_id: String, column: String, reason: String },
}

impl ArtifactDefect {
    /// The error about the file at `path`.
    pub(super) fn at(self, path: &Path) -> RecordError {
        RecordError::Artifact { path: path.to_owned(), defect: self }
    }

    pub(super) fn damaged(what: &'static str, reason: impl ToString) -> Self {
        Self::Damaged { what, reason: reason.to_string() }
    }
}

/// Why a line of a trace is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its variant and its fields mean")]
pub enum TraceDefect {
    #[error(transparent)]
    Line(#[from] LineFault),
    #[error("field `version`: {version} is unknown here, only {} is", TRACE_VERSION)]
    Version { version: u32 },
    #[error("field `token_idx`: token {token} in layer {layer} of prompt {prompt_id} repeats or goes back")]
    Repeated { prompt_id: String, token: u64, layer: u32 },
    #[error("field `prompt_id`: prompt {prompt_id} has ended before; its lines must stand together")]
    Reopened { prompt_id: String },
    #[error("field `stop_reason`: prompt {prompt_id} ends without one: lines are missing")]
    Unfinished { prompt_id: String },
}
