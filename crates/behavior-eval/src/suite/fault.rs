//! Faults in a line of a suite or its corpus.

use crate::text::LineFault;

/// A fault of one line; [`SuiteError::Line`](crate::suite::SuiteError::Line) adds the file and the line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its variant and its fields mean")]
pub enum SuiteFault {
    #[error(transparent)]
    Line(#[from] LineFault),
    #[error("field `chunk_id` is {got:?}, which cannot be cited: leave out brackets, line breaks and outer spaces")]
    NotCitable { got: String },
    #[error("field `prompt_id`: {prompt_id:?} is already the prompt of line {first_line}; give each prompt its own id")]
    DuplicatePrompt { prompt_id: String, first_line: u64 },
    #[error("field `chunk_id`: {chunk_id:?} of prompt {prompt_id:?} is already on line {first_line}")]
    DuplicateChunk { prompt_id: String, chunk_id: String, first_line: u64 },
    #[error("field `prompt_id`: prompt {prompt_id:?} already has {limit} chunks; a prompt may not have more")]
    TooManyChunks { prompt_id: String, limit: usize },
    #[error("field `prompt_id`: the suite has no prompt {prompt_id:?}; suite and corpus must be of one pair")]
    UnknownPrompt { prompt_id: String },
    #[error("field `{field}`: the corpus has no chunk {chunk_id:?} of prompt {prompt_id:?}")]
    UnknownChunk { field: &'static str, prompt_id: String, chunk_id: String },
    #[error("field `{field}`: {chunk_id:?} is named twice")]
    Repeated { field: &'static str, chunk_id: String },
    #[error(
        "field `context` leaves out chunk {chunk_id:?}, which line {corpus_line} of the corpus gives to this prompt"
    )]
    NotInContext { chunk_id: String, corpus_line: u64 },
    #[error(
        "field `user` differs at byte {byte} from its chunks as `text [chunk_id]` lines followed by `Question: ...`; a prompt must be rebuildable"
    )]
    UserDiffers { byte: usize },
    #[error("the suite has no prompts")]
    NoPrompts,
}
