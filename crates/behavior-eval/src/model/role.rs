//! Which of the models of a measurement is meant.

/// Which of the two models is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// The one that sets the standard.
    Teacher,
    /// The one that is measured.
    Student,
    /// The only one.
    Model,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Teacher => "teacher",
            Self::Student => "student",
            Self::Model => "model",
        })
    }
}
