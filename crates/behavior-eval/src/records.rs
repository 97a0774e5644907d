//! What runs leave on disk: teacher recordings, traces, and the journal of a student's run.

pub mod artifact;
pub mod trace;

mod job;
mod journal;

pub use journal::StudentJournal;
pub(crate) use journal::StudentRecord;
