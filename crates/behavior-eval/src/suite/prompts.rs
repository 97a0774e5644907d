//! Suites: prompts with the chunks of text that a model may cite.
//!
//! A suite is two files of JSON lines. The suite file holds one prompt per line,
//!
//! ```text
//! {"prompt_id", "label", "system", "user", "question", "context": [chunk ids], "relevant": [chunk ids], "gold_answer"}
//! ```
//!
//! and the corpus file one chunk per line, `{"prompt_id", "chunk_id", "source", "text"}`. `label`, `relevant` and
//! `gold_answer` may be missing; fields that are not named here are ignored. Chunk ids repeat across prompts: the key of a
//! chunk is its prompt and its id together.
//!
//! **Invariant:** the `user` text of every prompt is what [`render_user`] makes of its chunks and its question, so a
//! prompt whose chunks were partly removed is worded by the same rule as the prompts of the files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Result;

/// What the chunks of a prompt allow as an answer.
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
    #[must_use]
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

/// A piece of text that a prompt shows and an answer may cite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chunk {
    /// Its name within the prompt, what stands between the brackets of a citation.
    pub id: String,
    /// Where it comes from; chunks of one source are not independent of each other.
    pub source: String,
    /// What it says.
    pub text: String,
}

/// One question with its chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Prompt {
    /// Its name, unique in the suite.
    pub id: String,
    /// The true label, where the suite has one.
    pub label: Option<Label>,
    /// The system message.
    pub system: String,
    /// The user message: chunks, then the question.
    pub user: String,
    /// The question alone.
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
    #[must_use]
    pub fn chunk(&self, id: &str) -> Option<&Chunk> {
        self.chunks.iter().find(|chunk| chunk.id == id)
    }
}

/// Names one chunk of a suite.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ChunkKey {
    /// The prompt that shows it.
    pub prompt_id: String,
    /// Its id there.
    pub chunk_id: String,
}

/// Prompts in the order of their file, checked.
#[derive(Clone, Debug)]
pub struct Suite {
    pub(super) prompts: Vec<Prompt>,
    pub(super) identity: String,
}

impl Suite {
    /// Reads and checks both files, line by line.
    ///
    /// # Errors
    /// [`Error::Suite`](crate::Error::Suite) with file, line and fault for the first line that is not right, and for a
    /// suite without prompts; [`Error::File`](crate::Error::File) when a file cannot be read.
    ///
    /// ```
    /// use behavior_eval::suite::{Label, Suite};
    /// let suites = fixtures::path("suites");
    /// let suite = Suite::open(&suites.join("suite-200.jsonl"), &suites.join("suite-200.corpus.jsonl"))?;
    /// assert_eq!(suite.prompts().len(), 200);
    /// assert_eq!(suite.prompts()[0].label, Some(Label::Contested));
    /// # Ok::<(), behavior_eval::Error>(())
    /// ```
    pub fn open(suite_path: &Path, corpus_path: &Path) -> Result<Self> {
        super::read::open(suite_path, corpus_path)
    }

    /// The prompts, in the order of the file.
    #[must_use]
    pub fn prompts(&self) -> &[Prompt] {
        &self.prompts
    }

    /// BLAKE3 of both files' content, in hexadecimal; after [`without`](Self::without) also of what was removed.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The suite without some chunks. Prompts that lose one are worded anew and lose their label, which was true of the
    /// whole evidence; the others stay as they are. Keys of chunks that do not exist change nothing but the identity.
    #[must_use]
    pub fn without(&self, removed: &BTreeSet<ChunkKey>) -> Self {
        let mut by_prompt: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for key in removed {
            by_prompt.entry(&key.prompt_id).or_default().insert(&key.chunk_id);
        }
        let prompts = self.prompts.iter().map(|prompt| {
            let gone = by_prompt.remove(prompt.id.as_str()).unwrap_or_default();
            if !prompt.chunks.iter().any(|chunk| gone.contains(chunk.id.as_str())) {
                return prompt.clone();
            }
            let kept = |ids: &[String]| ids.iter().filter(|id| !gone.contains(id.as_str())).cloned().collect();
            let chunks: Vec<Chunk> =
                prompt.chunks.iter().filter(|chunk| !gone.contains(chunk.id.as_str())).cloned().collect();
            Prompt {
                label: None,
                user: render_user(&chunks, &prompt.question),
                context: kept(&prompt.context),
                relevant: prompt.relevant.as_deref().map(kept),
                chunks,
                ..prompt.clone()
            }
        });
        let mut hash = blake3::Hasher::new();
        hash.update(self.identity.as_bytes());
        for key in removed {
            for part in [&key.prompt_id, &key.chunk_id] {
                hash.update(&(part.len() as u64).to_le_bytes());
                hash.update(part.as_bytes());
            }
        }
        Self { prompts: prompts.collect(), identity: hash.finalize().to_hex().to_string() }
    }
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
#[must_use]
pub fn render_user(chunks: &[Chunk], question: &str) -> String {
    let mut user = String::new();
    for chunk in chunks {
        user.push_str(&chunk.text);
        user.push_str(" [");
        user.push_str(&chunk.id);
        user.push_str("]\n");
    }
    user.push_str("Question: ");
    user.push_str(question);
    user
}
