//! Faults in a line of a suite or its corpus.

/// A fault of one line; [`SuiteError::Line`](crate::suite::SuiteError::Line) adds the file and the line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its variant and its fields mean")]
pub enum SuiteFault {
    #[error("the line is longer than {limit} bytes; a prompt and its chunks fit into far less")]
    LineTooLong { limit: usize },
    #[error("the line is not UTF-8; save the file as UTF-8")]
    NotUtf8,
    #[error("the line is not JSON: {reason}; each line must be one complete object")]
    NotJson { reason: String },
    #[error("the line is {got} where an object is due")]
    NotAnObject { got: &'static str },
    #[error("field `{field}` stands in it twice; keep one of them")]
    RepeatedField { field: String },
    #[error("field `{field}` is missing")]
    Missing { field: &'static str },
    #[error("field `{field}` is {got} where {want} is due")]
    WrongType { field: &'static str, got: &'static str, want: &'static str },
    #[error("field `{field}` is empty")]
    Empty { field: &'static str },
    #[error("field `label` is {got:?}; use resolved, contested or indeterminate, or leave it out")]
    UnknownLabel { got: String },
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
