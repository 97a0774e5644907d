//! Failures of the operating system, outputs that cannot be written, and jobs that cannot be continued.

use std::path::PathBuf;

use super::parts::PartError;
use crate::text::NotText;

/// A defect of a file access, an output path or a job.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum StoreError {
    /// The operating system refused an action.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        /// File or directory of the action.
        path: PathBuf,
        source: std::io::Error,
    },
    /// A stream refused the bytes written to it.
    #[error("cannot write the output: {source}")]
    WriteStream { source: std::io::Error },
    /// A file that is larger than any of its kind.
    #[error("has more than {limit} bytes, and no file of its kind needs as many: give the right file")]
    TooLong { limit: u64 },
    /// Bytes that are neither UTF-8 nor marked UTF-16 where a text should be.
    #[error(transparent)]
    NotText(#[from] NotText),
    /// A directory where a file should be.
    #[error("{} is a directory: name a file inside of it", path.display())]
    IsDirectory { path: PathBuf },
    /// An output path that cannot be written.
    #[error("cannot be an output file: {why}")]
    BadOutput {
        /// The reason, with the remedy.
        why: &'static str,
    },
    /// The output file exists already.
    #[error("already exists: choose another name or pass --force to replace it")]
    OutputExists,
    /// The disk is too full.
    #[error("{need} bytes are needed on this disk, {have} are free: make room or choose another place")]
    NotEnoughSpace { need: u64, have: u64 },
    /// An unfinished job with other settings or inputs.
    #[error(
        "holds an unfinished job whose `{key}` is {stored}, now it is {given}: \
         repeat the first command, or pass --force to start over"
    )]
    ManifestMismatch {
        /// Dotted path of the first differing key.
        key: String,
        /// Value of the unfinished job, `absent` where it has none.
        stored: String,
        /// Value of the job that was to be started.
        given: String,
    },
    /// An unfinished job whose files cannot be read.
    #[error("holds an unfinished job that cannot be read ({what}): pass --force to start over")]
    JobDamaged { what: &'static str },
    /// The job's directory holds a file that no job writes there.
    #[error("holds `{file}`, which is no file of an unfinished job: move it elsewhere")]
    JobForeignFile { file: String },
    /// Another process holds the job.
    #[error("another process is working on this output: wait for it or stop it")]
    JobBusy,
    /// Parts of a job that cannot be joined.
    #[error(transparent)]
    Part(#[from] PartError),
    /// A call on a job that has been committed or has failed.
    #[error("the job has ended: open it again")]
    JobEnded,
}
