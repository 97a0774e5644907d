//! Reads a suite and its corpus and checks them against each other.
//!
//! The suite comes first; its prompts wait for their chunks with the line they came from, so that a fault that only the
//! corpus reveals still names the line of the prompt.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::fault::SuiteFault;
use super::lines::Lines;
use super::prompt::{Chunk, Prompt, render_user};
use super::prompts::Suite;
use crate::Result;
use crate::text::{Fields, LineFault};

/// The most chunks of one prompt. Evidence compares them with each other, so that their number must be bounded.
const MOST_CHUNKS: usize = 2_000;

/// A prompt with its line and the chunks that the corpus gives it, each with its line.
struct Pending {
    prompt: Prompt,
    line: u64,
    chunks: BTreeMap<String, (Chunk, u64)>,
}

impl Suite {
    /// Reads and checks both files, line by line.
    ///
    /// # Errors
    /// [`SuiteError::Line`](crate::suite::SuiteError::Line) with file, line and fault for the first line that is not right, and for a
    /// suite without prompts; [`Error::Store`](crate::Error::Store) and [`Error::File`](crate::Error::File) when a file cannot be
    /// read.
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
        Self::read(Lines::open(suite_path)?, Lines::open(corpus_path)?)
    }

    /// As [`Suite::open`], from the texts of both files.
    ///
    /// # Errors
    /// As [`Suite::open`].
    pub fn parse(suite: &str, corpus: &str) -> Result<Self> {
        Self::read(Lines::of("the suite", suite), Lines::of("the corpus", corpus))
    }

    fn read(mut suite: Lines, mut corpus: Lines) -> Result<Self> {
        let (mut pending, by_id) = read_prompts(&mut suite)?;
        while let Some(object) = corpus.next_object()? {
            let line = corpus.number();
            let (prompt_id, chunk) = chunk(object).map_err(|fault| corpus.fault(fault))?;
            let Some(&at) = by_id.get(&prompt_id) else {
                return Err(corpus.fault(SuiteFault::UnknownPrompt { prompt_id }));
            };
            let chunks = &mut pending[at].chunks;
            if let Some((_, first_line)) = chunks.get(&chunk.id) {
                let (chunk_id, first_line) = (chunk.id, *first_line);
                return Err(corpus.fault(SuiteFault::DuplicateChunk { prompt_id, chunk_id, first_line }));
            }
            if chunks.len() == MOST_CHUNKS {
                return Err(corpus.fault(SuiteFault::TooManyChunks { prompt_id, limit: MOST_CHUNKS }));
            }
            chunks.insert(chunk.id.clone(), (chunk, line));
        }
        let joined = pending.into_iter().map(|pending| {
            let line = pending.line;
            join(pending).map_err(|fault| suite.fault_at(line, fault))
        });
        let prompts = joined.collect::<Result<Vec<_>>>()?;
        let mut hash = blake3::Hasher::new();
        hash.update(suite.hash().as_bytes());
        hash.update(corpus.hash().as_bytes());
        Ok(Suite { prompts, identity: hash.finalize().to_hex().to_string() })
    }
}

/// All prompts of the suite file, and where each id stands among them.
fn read_prompts(suite: &mut Lines) -> Result<(Vec<Pending>, BTreeMap<String, usize>)> {
    let (mut pending, mut by_id): (Vec<Pending>, BTreeMap<String, usize>) = (Vec::new(), BTreeMap::new());
    while let Some(object) = suite.next_object()? {
        let line = suite.number();
        let prompt = prompt(object).map_err(|fault| suite.fault(fault))?;
        if let Some(&first) = by_id.get(&prompt.id) {
            let first_line = pending[first].line;
            return Err(suite.fault(SuiteFault::DuplicatePrompt { prompt_id: prompt.id, first_line }));
        }
        by_id.insert(prompt.id.clone(), pending.len());
        pending.push(Pending { prompt, line, chunks: BTreeMap::new() });
    }
    if pending.is_empty() {
        return Err(suite.fault_at(suite.number().max(1), SuiteFault::NoPrompts));
    }
    Ok((pending, by_id))
}

/// One line of the suite; the chunks are still missing.
fn prompt(mut fields: Fields) -> Result<Prompt, LineFault> {
    Ok(Prompt {
        id: fields.take_text("prompt_id")?,
        label: fields.take_optional("label")?,
        system: fields.take("system")?,
        user: fields.take_text("user")?,
        question: fields.take_text("question")?,
        context: fields.take("context")?,
        relevant: fields.take_optional("relevant")?,
        gold_answer: fields.take_optional("gold_answer")?,
        chunks: Vec::new(),
    })
}

/// One line of the corpus: the prompt's id and the chunk.
fn chunk(mut fields: Fields) -> Result<(String, Chunk), SuiteFault> {
    let (prompt_id, id) = (fields.take_text("prompt_id")?, fields.take_text("chunk_id")?);
    if id.contains(['[', ']', '\n', '\r']) || id.trim() != id {
        return Err(SuiteFault::NotCitable { got: id });
    }
    Ok((prompt_id, Chunk { id, source: fields.take_text("source")?, text: fields.take_text("text")? }))
}

/// The prompt with its chunks in the order of its context.
fn join(Pending { mut prompt, mut chunks, .. }: Pending) -> Result<Prompt, SuiteFault> {
    if let Some(relevant) = &prompt.relevant {
        let mut named = BTreeSet::new();
        for id in relevant {
            if !chunks.contains_key(id) {
                return Err(unknown("relevant", &prompt, id));
            }
            if !named.insert(id) {
                return Err(SuiteFault::Repeated { field: "relevant", chunk_id: id.clone() });
            }
        }
    }
    for id in &prompt.context {
        match chunks.remove(id) {
            Some((chunk, _)) => prompt.chunks.push(chunk),
            None if prompt.chunk(id).is_some() => {
                return Err(SuiteFault::Repeated { field: "context", chunk_id: id.clone() });
            }
            None => return Err(unknown("context", &prompt, id)),
        }
    }
    if let Some((chunk_id, (_, corpus_line))) = chunks.pop_first() {
        return Err(SuiteFault::NotInContext { chunk_id, corpus_line });
    }
    let want = render_user(&prompt.chunks, &prompt.question);
    if want != prompt.user {
        let same = want.bytes().zip(prompt.user.bytes()).take_while(|(a, b)| a == b).count();
        return Err(SuiteFault::UserDiffers { byte: same });
    }
    Ok(prompt)
}

fn unknown(field: &'static str, prompt: &Prompt, chunk_id: &str) -> SuiteFault {
    SuiteFault::UnknownChunk { field, prompt_id: prompt.id.clone(), chunk_id: chunk_id.to_owned() }
}
