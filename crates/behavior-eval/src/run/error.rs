//! Errors that end a gate run.

use crate::model::ModelError;

/// Models with which a gate run cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its variant and its fields mean")]
pub enum RunError {
    #[error("{what}: {teacher} in the teacher, {student} in the student; the gates compare models of one architecture")]
    Incomparable { what: &'static str, teacher: String, student: String },
    #[error(
        "prompt {prompt_id} has other tokens in the student than in the teacher; both must share tokenizer and chat \
         template"
    )]
    OtherTokens { prompt_id: String },
    #[error("unit {unit} of the parts is not the measurement of prompt {prompt_id} ({what}): run its shard again")]
    Unit { unit: usize, prompt_id: String, what: &'static str },
    #[error("the teacher cannot be loaded: {source}")]
    TeacherNotLoaded { source: ModelError },
}
