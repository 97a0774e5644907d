//! A prompt of a suite, its chunks, and the lines that state both in the two files of a suite.
//!
//! `bitnet eval-gates` reads these fields, in this order (docs/gates.md).

use serde_json::{Value, json};

/// The true label of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    /// The evidence agrees: an answer is due.
    Resolved,
    /// The evidence contradicts itself.
    Contested,
    /// The evidence does not suffice: a refusal is due.
    Indeterminate,
}

impl Label {
    pub(super) const ALL: [Label; 3] = [Label::Resolved, Label::Contested, Label::Indeterminate];

    pub(super) fn name(self) -> &'static str {
        match self {
            Label::Resolved => "resolved",
            Label::Contested => "contested",
            Label::Indeterminate => "indeterminate",
        }
    }
}

/// A piece of evidence that a prompt shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Unique within its prompt.
    pub(super) id: String,
    pub(super) source: String,
    pub(super) text: String,
}

/// One prompt with its label, its evidence and the answer its author would give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prompt {
    /// Unique within its suite.
    pub(super) id: String,
    pub(super) label: Label,
    pub(super) system: String,
    pub(super) question: String,
    /// Ids of the chunks that hold the answer.
    pub(super) relevant: Vec<String>,
    pub(super) gold_answer: String,
    /// In the order in which the user message shows them.
    pub(super) chunks: Vec<Chunk>,
}

impl Prompt {
    /// The user message: each chunk as `text [id]` on a line of its own, then `Question: ` and the question.
    pub(super) fn user(&self) -> String {
        let chunks = self.chunks.iter().map(|chunk| format!("{} [{}]\n", chunk.text, chunk.id));
        chunks.collect::<String>() + "Question: " + &self.question
    }

    /// The prompt's line in the suite file.
    pub(super) fn suite_line(&self) -> Value {
        let context: Vec<&str> = self.chunks.iter().map(|chunk| chunk.id.as_str()).collect();
        json!({
            "prompt_id": self.id,
            "label": self.label.name(),
            "system": self.system,
            "user": self.user(),
            "question": self.question,
            "context": context,
            "relevant": self.relevant,
            "gold_answer": self.gold_answer,
        })
    }

    /// The lines of its chunks in the corpus file.
    pub(super) fn corpus_lines(&self) -> impl Iterator<Item = Value> {
        self.chunks.iter().map(|chunk| {
            json!({
                "prompt_id": self.id, "chunk_id": chunk.id, "source": chunk.source, "text": chunk.text,
            })
        })
    }
}
