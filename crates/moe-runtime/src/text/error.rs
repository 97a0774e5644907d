//! Failures of tokenizers and chat templates.

use std::path::PathBuf;

/// A tokenizer, a text or a conversation that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message names its fields")]
pub enum TextError {
    /// A tokenizer file that cannot be read.
    #[error("tokenizer file {} is not usable: {reason}; copy it again from the checkpoint's source", path.display())]
    TokenizerFile { path: PathBuf, reason: String },
    /// A vocabulary that contradicts itself.
    #[error("the tokenizer in {origin} is damaged: {defect}; convert the model again")]
    Vocabulary { origin: String, defect: VocabularyDefect },
    /// A tokenizer of another kind than byte-level BPE.
    #[error("{feature} is not supported; {remedy}")]
    Unsupported { feature: String, remedy: &'static str },
    /// The text could not be split.
    #[error("the tokenizer cannot encode this text: {reason}")]
    Encode { reason: String },
    /// A chat template that does not compile or does not run.
    #[error("the chat template fails: {reason}; run with --raw, or give the model another template")]
    ChatTemplate { reason: String },
    /// A chat template that refuses the conversation in its own words.
    #[error("the chat template refuses the conversation: {message}")]
    ChatRefused { message: String },
    /// Stop strings that take too long to look for.
    #[error(
        "{count} stop strings, the longest of {longest} bytes, are too many or too long; give at most 16 of at most 1024 bytes"
    )]
    StopStrings { count: usize, longest: usize },
    /// A conversation that is no JSON object of messages.
    #[error("the conversation is not usable: {reason}")]
    Conversation { reason: String },
    /// A message that is no chat message.
    #[error("chat message {index} is not usable: {reason}")]
    ChatMessage { index: usize, reason: String },
}

/// A defect of a vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message names its fields")]
pub enum VocabularyDefect {
    /// The same text has two ids.
    #[error("token {token:?} has the ids {first} and {second}")]
    DuplicateToken { token: String, first: u32, second: u32 },
    /// Two texts have the same id.
    #[error("id {id} belongs to {first:?} and to {second:?}")]
    DuplicateId { id: u32, first: String, second: String },
    /// An id outside the vocabulary.
    #[error("{what} has id {id}, but ids end below {limit}")]
    IdOutOfRange { what: String, id: u64, limit: u64 },
    /// A merge of tokens that do not exist.
    #[error("merge {index} ({merge:?}) names a token that is not in the vocabulary")]
    Merge { index: usize, merge: String },
    /// A byte of ordinary text has no token, so that text could not be encoded.
    #[error("byte {byte:#04x} has no token")]
    MissingByte { byte: u8 },
    /// A token type the format does not know.
    #[error("token {index} has type {got}; types are 1 to 6")]
    TokenType { index: usize, got: i64 },
    /// Two lists that must be equally long are not.
    #[error("{list} has {got} entries for {want} tokens")]
    Length { list: &'static str, got: usize, want: usize },
    /// A token without text, or a special token that cannot be matched.
    #[error("token {id} has no text")]
    EmptyToken { id: u32 },
    /// The vocabulary has no token.
    #[error("it holds no token")]
    Empty,
}
