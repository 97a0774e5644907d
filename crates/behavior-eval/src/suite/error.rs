//! What can be wrong with a suite.

use std::path::PathBuf;

use super::fault::SuiteFault;

/// What can be wrong with a suite. None of it is ever turned into a figure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its variant and its fields mean")]
pub enum SuiteError {
    #[error("{} line {line}: {fault}", file.display())]
    Line { file: PathBuf, line: u64, fault: SuiteFault },
    #[error("the suite has no prompt {prompt_id}; give the suite that it is of")]
    UnknownPrompt { prompt_id: String },
}
