//! Failures of training.

use std::path::PathBuf;

/// A model that cannot be trained, or a run that cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its variant and its fields mean")]
pub enum TrainError {
    #[error("the model has no tensor `{tensor}`: run `bitnet inspect` on it")]
    Missing { tensor: String },
    #[error("{path} is no GGUF of one file that holds each tensor by itself: make the student with `bitnet quantize`")]
    NoStudent { path: String },
    #[error("teacher and student do not fit each other: {reason}")]
    Misfit { reason: String },
    #[error("the file has no weights of the groups that are to be trained ({groups}): name others with --train")]
    NothingToTrain { groups: String },
    #[error(
        "step {step}: {what} of the group `{group}` is not a finite number: lower --lr. The last good state is that of step \
         {last_good}, in {}", kept.display()
    )]
    NotFinite { step: usize, what: String, group: &'static str, last_good: usize, kept: PathBuf },
    #[error("{name}: the trained values do not fit the type {ty} of the file")]
    Unwritable { name: String, ty: &'static str },
}
