//! The specification of an artifact, from which its key is made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::model::SubjectInfo;
use crate::records::format::{ARTIFACT_VERSION, FILE_NAME};

/// Positions whose logits are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "variants without a sentence speak for themselves")]
pub enum LogitsAt {
    Nowhere,
    /// From the last token of the prompt to the last one of the answer: every token of the answer and its end. That
    /// includes where the answer turns to refusing (its first token) and where it discloses a conflict.
    Answer,
    Everywhere,
}

/// The columns that a recording may have or lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Columns {
    /// All router scores: for router repair.
    pub scores: bool,
    /// The input of each router, and the routing of that input: for the local mode.
    pub router_inputs: bool,
    /// The residual stream after the final norm: for coherence.
    pub final_hidden: bool,
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
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct ArtifactSpec {
    pub model: SubjectInfo,
    /// BLAKE3 of the suite and its corpus, in hexadecimal.
    pub suite: String,
    pub max_new_tokens: usize,
    pub columns: Columns,
    /// All else that decides the numbers: how activations and keys are rounded, where the labels come from.
    pub settings: BTreeMap<String, Value>,
}

impl ArtifactSpec {
    /// The content of the key, and the manifest of the job that records. The model counts by its identity; its name
    /// does not count.
    pub(crate) fn manifest(&self) -> Value {
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
    pub fn key(&self) -> String {
        blake3::hash(self.manifest().to_string().as_bytes()).to_string()
    }

    /// The artifact's file below the folder that holds all artifacts.
    pub fn path(&self, root: &Path) -> PathBuf {
        root.join(self.key()).join(FILE_NAME)
    }
}
