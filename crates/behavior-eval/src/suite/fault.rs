//! What can be wrong with a line of a suite or its corpus.

/// A fault of one line; [`Error::Suite`](crate::Error::Suite) adds the file and the line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SuiteFault {
    /// A line nobody writes by hand.
    #[error("the line is longer than {limit} bytes; a prompt and its chunks fit into far less")]
    LineTooLong {
        /// The most a line may have.
        limit: usize,
    },
    /// Bytes that are no text.
    #[error("the line is not UTF-8; save the file as UTF-8")]
    NotUtf8,
    /// Text that is no JSON.
    #[error("the line is not JSON: {reason}; each line must be one complete object")]
    NotJson {
        /// What the parser said.
        reason: String,
    },
    /// JSON that is no object.
    #[error("the line is {got} where an object is due")]
    NotAnObject {
        /// The type that came.
        got: &'static str,
    },
    /// An object that gives a field twice.
    #[error("field `{field}` stands in it twice; keep one of them")]
    RepeatedField {
        /// Its path, with dots.
        field: String,
    },
    /// A field that must be there.
    #[error("field `{field}` is missing")]
    Missing {
        /// Its name.
        field: &'static str,
    },
    /// A field of another type.
    #[error("field `{field}` is {got} where {want} is due")]
    WrongType {
        /// Its name.
        field: &'static str,
        /// The type that came.
        got: &'static str,
        /// The type that is due.
        want: &'static str,
    },
    /// An id or text of no characters.
    #[error("field `{field}` is empty")]
    Empty {
        /// Its name.
        field: &'static str,
    },
    /// A label that does not exist.
    #[error("field `label` is {got:?}; use resolved, contested or indeterminate, or leave it out")]
    UnknownLabel {
        /// What it says.
        got: String,
    },
    /// An id that cannot stand between the brackets of a citation.
    #[error("field `chunk_id` is {got:?}, which cannot be cited: leave out brackets, line breaks and outer spaces")]
    NotCitable {
        /// The id.
        got: String,
    },
    /// Two prompts of one name.
    #[error("field `prompt_id`: {prompt_id:?} is already the prompt of line {first_line}; give each prompt its own id")]
    DuplicatePrompt {
        /// The name.
        prompt_id: String,
        /// Where it came first.
        first_line: u64,
    },
    /// Two chunks of one name in one prompt.
    #[error("field `chunk_id`: {chunk_id:?} of prompt {prompt_id:?} is already on line {first_line}")]
    DuplicateChunk {
        /// The prompt.
        prompt_id: String,
        /// The name.
        chunk_id: String,
        /// Where it came first.
        first_line: u64,
    },
    /// A prompt with more chunks than anybody shows a model.
    #[error("field `prompt_id`: prompt {prompt_id:?} already has {limit} chunks; a prompt may not have more")]
    TooManyChunks {
        /// The prompt.
        prompt_id: String,
        /// The most a prompt may have.
        limit: usize,
    },
    /// A chunk of a prompt that the suite does not have.
    #[error("field `prompt_id`: the suite has no prompt {prompt_id:?}; suite and corpus must be of one pair")]
    UnknownPrompt {
        /// The name.
        prompt_id: String,
    },
    /// A prompt that names a chunk which the corpus does not have.
    #[error("field `{field}`: the corpus has no chunk {chunk_id:?} of prompt {prompt_id:?}")]
    UnknownChunk {
        /// Field of the prompt.
        field: &'static str,
        /// The prompt.
        prompt_id: String,
        /// The name.
        chunk_id: String,
    },
    /// A list that names a chunk twice.
    #[error("field `{field}`: {chunk_id:?} is named twice")]
    Repeated {
        /// Field of the prompt.
        field: &'static str,
        /// The name.
        chunk_id: String,
    },
    /// A chunk of the corpus that the prompt does not show.
    #[error(
        "field `context` leaves out chunk {chunk_id:?}, which line {corpus_line} of the corpus gives to this prompt"
    )]
    NotInContext {
        /// The name.
        chunk_id: String,
        /// Line of the corpus.
        corpus_line: u64,
    },
    /// A user message that the rule of the format does not give.
    #[error(
        "field `user` differs at byte {byte} from its chunks as `text [chunk_id]` lines followed by `Question: ...`; a prompt must be rebuildable"
    )]
    UserDiffers {
        /// First byte that differs.
        byte: usize,
    },
    /// A file without prompts.
    #[error("the suite has no prompts")]
    NoPrompts,
}
