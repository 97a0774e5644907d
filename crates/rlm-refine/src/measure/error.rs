//! Failures of measuring a model.

/// Result of this room's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A model that the evaluation cannot use, or a failure of reading, loading or running it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model has no experts, and the gates compare the experts of two models.
    #[error("{path} has no experts: the gates compare which experts compute a token")]
    NoExperts {
        /// The file or folder of the model.
        path: String,
    },
    /// The model has no chat template, and the gates ask questions in the model's own format.
    #[error("{path} has no chat template: the gates ask questions in the model's own format")]
    NoChatTemplate {
        /// The file or folder of the model.
        path: String,
    },
    /// A group of one prompt does not fit the memory.
    #[error(
        "one prompt with its answer ({tokens} tokens) needs {need} bytes of memory and {limit} are allowed: raise --teacher-memory"
    )]
    Memory {
        /// Tokens of prompt and answer.
        tokens: usize,
        /// Bytes that are needed.
        need: u64,
        /// Bytes that are allowed.
        limit: u64,
    },
    /// Loading or running the model.
    #[error(transparent)]
    Runtime(#[from] moe_runtime::Error),
    /// Reading the model's files.
    #[error(transparent)]
    Gguf(#[from] gguf_bitnet::Error),
}
