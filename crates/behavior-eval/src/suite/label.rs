//! The labels of prompts.

use serde::{Deserialize, Serialize};

/// The answer that the chunks of a prompt allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Enough independent sources agree: an answer with citations is due.
    Resolved,
    /// Sources disagree: the disagreement is to be disclosed. Reported, never gated.
    Contested,
    /// No answer has enough evidence: a refusal is due.
    Indeterminate,
}

impl Label {
    /// All labels, in the order of reports.
    pub const ALL: [Self; 3] = [Self::Resolved, Self::Contested, Self::Indeterminate];

    /// The word that suites and reports use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resolved => "resolved",
            Self::Contested => "contested",
            Self::Indeterminate => "indeterminate",
        }
    }
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
