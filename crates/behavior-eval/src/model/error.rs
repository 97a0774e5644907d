//! Errors of a model under the gates.

use crate::model::{ModelError, Role};

/// Failures and broken promises of a model under the gates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its variant and its fields mean")]
pub enum SubjectError {
    #[error("the {role} failed on prompt {prompt_id}: {source}")]
    Failed { role: Role, prompt_id: String, source: ModelError },
    #[error(
        "the {role} handed out {got} as {what} of prompt {prompt_id}; run `bitnet verify` on it, or mend its `Subject`"
    )]
    Contract { role: Role, prompt_id: String, what: &'static str, got: String },
}
