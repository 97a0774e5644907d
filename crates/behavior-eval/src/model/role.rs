//! Which of the models of a measurement is meant.

use serde::Serialize;

/// Which of the two models is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
#[allow(missing_docs, reason = "variants without a sentence speak for themselves")]
pub enum Role {
    /// The one that sets the standard.
    Teacher,
    /// The one that is measured.
    Student,
    Model,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}
