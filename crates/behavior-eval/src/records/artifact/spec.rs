//! What an artifact is a recording of: its key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::layout::FILE_NAME;
use crate::model::SubjectInfo;
use crate::records::artifact::ARTIFACT_VERSION;

/// Positions whose logits are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogitsAt {
    /// None.
    Nowhere,
    /// From the last token of the prompt to the last one of the answer: every token of the answer and its end. That
    /// includes where the answer turns to refusing (its first token) and where it discloses a conflict.
    Answer,
    /// All.
    Everywhere,
}

/// The optional columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Columns {
    /// All router scores: for router repair.
    pub scores: bool,
    /// What each router read, and what it decides on that: for the local mode.
    pub router_inputs: bool,
    /// The residual stream after the final norm: for coherence.
    pub final_hidden: bool,
    /// Sparse logits.
    pub logits: LogitsAt,
    /// Tokens kept per position of logits.
    pub kept: usize,
}

impl Default for Columns {
    /// Routing, final hidden states, router inputs, and the best 256 logits of the answers.
    fn default() -> Self {
        Self { scores: false, router_inputs: true, final_hidden: true, logits: LogitsAt::Answer, kept: 256 }
    }
}

/// Everything that decides what an artifact holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArtifactSpec {
    /// The teacher.
    pub model: SubjectInfo,
    /// BLAKE3 of the suite and its corpus, in hexadecimal.
    pub suite: String,
    /// Most tokens of an answer.
    pub max_new_tokens: usize,
    /// What is recorded.
    pub columns: Columns,
    /// Whatever else decides the numbers: how activations and keys are rounded, where the labels come from.
    pub settings: BTreeMap<String, Value>,
}

impl ArtifactSpec {
    /// What the key is made of, and the manifest of the job that records. The model counts by its identity; its name
    /// does not count.
    #[must_use]
    pub fn manifest(&self) -> Value {
        json!({
            "artifact": ARTIFACT_VERSION,
            "model": self.model.id,
            "suite": self.suite,
            "max_new_tokens": self.max_new_tokens,
            "columns": self.columns,
            "settings": self.settings,
        })
    }

    /// The name of the artifact's folder: BLAKE3 of the manifest, in hexadecimal.
    #[must_use]
    pub fn key(&self) -> String {
        blake3::hash(self.manifest().to_string().as_bytes()).to_string()
    }

    /// The artifact's file below the folder that holds all artifacts.
    #[must_use]
    pub fn path(&self, root: &Path) -> PathBuf {
        root.join(self.key()).join(FILE_NAME)
    }
}
