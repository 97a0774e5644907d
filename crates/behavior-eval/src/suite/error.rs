//! Errors of suites.

use std::path::PathBuf;

use super::fault::SuiteFault;

/// Suites that are refused, and prompts that a suite lacks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its variant and its fields mean")]
pub enum SuiteError {
    #[error("{} line {line}: {fault}", file.display())]
    Line { file: PathBuf, line: u64, fault: SuiteFault },
    #[error("the suite has no prompt {prompt_id}; give the suite that it is of")]
    UnknownPrompt { prompt_id: String },
}
