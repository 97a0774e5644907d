//! Files that runs leave on disk: teacher recordings, traces, and the journal of a student's run.

pub mod artifact;
pub mod trace;

mod bytes;
mod error;
mod file;
mod format;
mod job;
mod journal;

pub use error::{ArtifactDefect, RecordError, TraceDefect};
pub use format::MAX_LINE_BYTES;
pub(crate) use journal::{Head, StudentJournal, StudentRecord};
