//! Failures of a measurement: one enum per room, nested in the crate's. No failure is ever turned into a figure.

use std::path::PathBuf;

use crate::fidelity::FidelityError;
use crate::gates::GateError;
use crate::labels::LabelError;
use crate::model::SubjectError;
use crate::records::RecordError;
use crate::report::ReportError;
use crate::run::RunError;
use crate::suite::SuiteError;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Failures of a measurement.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant holds the error of the room it is named after")]
pub enum Error {
    #[error(transparent)]
    Fidelity(#[from] FidelityError),
    #[error(transparent)]
    Gates(#[from] GateError),
    #[error(transparent)]
    Labels(#[from] LabelError),
    #[error(transparent)]
    Records(#[from] RecordError),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Subject(#[from] SubjectError),
    #[error(transparent)]
    Suite(#[from] SuiteError),
    /// A file that cannot be opened, read or written.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// A file that cannot be read or replaced, or a resumable job that cannot go on.
    #[error(transparent)]
    Store(#[from] gguf_bitnet::Error),
}
