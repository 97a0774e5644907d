//! One prompt with its chunks.

use serde::Serialize;

use super::label::Label;

/// A piece of text that a prompt shows and an answer may cite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Chunk {
    /// Its name within the prompt, what stands between the brackets of a citation.
    pub id: String,
    /// Where it comes from; chunks of one source are not independent of each other.
    pub source: String,
    pub text: String,
}

/// One question with its chunks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Prompt {
    /// Its name, unique in the suite.
    pub id: String,
    /// The true label, where the suite has one.
    pub label: Option<Label>,
    pub system: String,
    /// The user message: chunks, then the question.
    pub user: String,
    pub question: String,
    /// Ids of the chunks in the order of the user message.
    pub context: Vec<String>,
    /// Ids of the chunks that hold the answer, where the suite says so.
    pub relevant: Option<Vec<String>>,
    /// The answer the suite's author would give.
    pub gold_answer: Option<String>,
    /// The chunks in the order of the user message.
    pub chunks: Vec<Chunk>,
}

impl Prompt {
    /// The chunk with this id.
    pub fn chunk(&self, id: &str) -> Option<&Chunk> {
        self.chunks.iter().find(|chunk| chunk.id == id)
    }
}

/// Names one chunk of a suite.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct ChunkKey {
    /// The prompt that shows it.
    pub prompt_id: String,
    pub chunk_id: String,
}

/// The user message: each chunk as `text [id]` on a line of its own, then `Question: ` and the question.
///
/// ```
/// use behavior_eval::suite::{Chunk, render_user};
/// let chunk = Chunk { id: "doc-2".into(), source: "atlas".into(), text: "The river of Oz is Ozo.".into() };
/// assert_eq!(
///     render_user(&[chunk], "What is the river of Oz?"),
///     "The river of Oz is Ozo. [doc-2]\nQuestion: What is the river of Oz?"
/// );
/// ```
pub fn render_user(chunks: &[Chunk], question: &str) -> String {
    let shown = chunks.iter().map(|chunk| format!("{} [{}]\n", chunk.text, chunk.id));
    shown.collect::<String>() + "Question: " + question
}
