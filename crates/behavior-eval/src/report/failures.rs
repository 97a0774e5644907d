//! Where a gate failed, and what would repair it.

use serde::Serialize;

use crate::gates::BehavioralGate;

/// A failed gate of the student.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Failure {
    pub gate: BehavioralGate,
    /// The failure in a sentence with the figures.
    pub what: String,
    /// Layers with the lowest agreement first; routing only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub worst_layers: Vec<u32>,
    /// The prompts that cost most, at most ten.
    pub worst_prompts: Vec<WorstPrompt>,
    /// The decisions that differ on these prompts; routing only. The trace has those of all prompts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub misrouted: Vec<Misrouted>,
    pub remedy: &'static str,
}

/// A prompt that a gate failed on.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct WorstPrompt {
    pub prompt_id: String,
    pub label: String,
    /// The fault of the answer.
    pub why: String,
    pub question: String,
    pub response: String,
    pub teacher_response: String,
}

/// Tokens of a prompt and its answer that one layer sends to other experts than the teacher's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Misrouted {
    pub prompt_id: String,
    pub layer: u32,
    /// Positions from the first token of the prompt.
    pub tokens: Vec<u32>,
}

impl Failure {
    /// The failure in a few lines of text.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.what.clone()];
        if !self.worst_layers.is_empty() {
            lines.push(format!("layers with the lowest agreement: {}", self.layers_text()));
        }
        for prompt in &self.worst_prompts {
            lines.push(format!("{} ({}): {}; answer: {}", prompt.prompt_id, prompt.label, prompt.why, prompt.response));
        }
        lines.push(format!("remedy: {}", self.remedy_text()));
        lines
    }

    /// The worst layers, separated by commas.
    pub(crate) fn layers_text(&self) -> String {
        self.worst_layers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
    }

    /// The repair for the gate, with the option that runs it.
    pub(crate) fn remedy_text(&self) -> String {
        format!("{}; `bitnet eval-gates --repair` runs it", self.remedy)
    }
}
