//! What can go wrong between a model file and its tokens; every message says what to do about it.

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Failures of configuration, loading and running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `config.json` is no JSON object.
    #[error("config.json is not readable JSON ({reason}); copy it again from the checkpoint's source")]
    ConfigJson {
        /// What the parser said.
        reason: String,
    },
    /// A configuration key that the architecture cannot do without is absent.
    #[error("the configuration lacks `{key}`, which {arch} needs; add it or convert the model again")]
    MissingKey {
        /// Key as it is spelled in the source.
        key: String,
        /// Architecture that needs it.
        arch: &'static str,
    },
    /// A configuration value breaks a rule.
    #[error("configuration value `{key}` = {value} is not usable: {rule}")]
    BadValue {
        /// Key as it is spelled in the source.
        key: String,
        /// The value found.
        value: String,
        /// What it has to satisfy.
        rule: String,
    },
    /// Two keys state different things.
    #[error("the configuration contradicts itself: `{first}` and `{second}` disagree ({detail}); correct one of them")]
    Contradiction {
        /// One key.
        first: String,
        /// The other key.
        second: String,
        /// Both statements.
        detail: String,
    },
    /// A model of another family.
    #[error("architecture `{got}` is not supported; this runtime knows {known}")]
    UnsupportedArchitecture {
        /// Name in the source.
        got: String,
        /// Names that work.
        known: &'static str,
    },
    /// A feature of the family that this runtime refuses rather than gets wrong.
    #[error("{feature} is not supported; {remedy}")]
    Unsupported {
        /// The feature, with the key that asks for it.
        feature: String,
        /// What the user can do.
        remedy: &'static str,
    },
    /// A sampling setting is out of range.
    #[error("sampling setting {setting} = {value} is not usable; it has to be {rule}")]
    Sampling {
        /// Name of the setting.
        setting: &'static str,
        /// The value given.
        value: f32,
        /// Its range.
        rule: &'static str,
    },
    /// A logit that no token can be chosen by.
    #[error("logit {token} is {value}: the forward pass went wrong; run `bitnet verify` on the model")]
    Logit {
        /// Index of the logit.
        token: usize,
        /// Its value.
        value: f32,
    },
    /// A row without logits.
    #[error("there is no logit to choose a token from; the model's vocabulary is empty")]
    NoLogits,
    /// More logits than token ids exist.
    #[error("a row of logits reaches index {got}, but token ids have 32 bits; convert the model again")]
    TooManyLogits {
        /// Index that does not fit.
        got: usize,
    },
    /// A chat template that does not compile or does not run.
    #[error("the chat template fails: {reason}; run with --raw, or give the model another template")]
    ChatTemplate {
        /// What the template engine said.
        reason: String,
    },
    /// A chat template that refuses the conversation in its own words.
    #[error("the chat template refuses the conversation: {message}")]
    ChatRefused {
        /// The template's words.
        message: String,
    },
    /// A message that is no chat message.
    #[error("chat message {index} is not usable: {reason}")]
    ChatMessage {
        /// Index of the message, from 0.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A tokenizer file that cannot be read.
    #[error("tokenizer file {} is not usable: {reason}; copy it again from the checkpoint's source", path.display())]
    TokenizerFile {
        /// The file.
        path: std::path::PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// A vocabulary that contradicts itself.
    #[error("the tokenizer in {origin} is damaged: {defect}; convert the model again")]
    Vocabulary {
        /// Where the vocabulary came from.
        origin: String,
        /// What contradicts what.
        defect: VocabularyDefect,
    },
    /// The text could not be split.
    #[error("the tokenizer cannot encode this text: {reason}")]
    Encode {
        /// What the tokenizer said.
        reason: String,
    },
}

/// What is wrong with a vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VocabularyDefect {
    /// The same text has two ids.
    #[error("token {token:?} has the ids {first} and {second}")]
    DuplicateToken {
        /// The text.
        token: String,
        /// One id.
        first: u32,
        /// The other.
        second: u32,
    },
    /// Two texts have the same id.
    #[error("id {id} belongs to {first:?} and to {second:?}")]
    DuplicateId {
        /// The id.
        id: u32,
        /// One text.
        first: String,
        /// The other.
        second: String,
    },
    /// An id outside the vocabulary.
    #[error("{what} has id {id}, but ids end below {limit}")]
    IdOutOfRange {
        /// The token or the key.
        what: String,
        /// Its id.
        id: u64,
        /// First id that is too large.
        limit: u64,
    },
    /// A merge of tokens that do not exist.
    #[error("merge {index} ({merge:?}) names a token that is not in the vocabulary")]
    Merge {
        /// Index of the merge.
        index: usize,
        /// The merge as written.
        merge: String,
    },
    /// One of the 256 byte tokens is absent, so some text could not be encoded.
    #[error("byte {byte:#04x} has no token")]
    MissingByte {
        /// The byte.
        byte: u8,
    },
    /// A token type the format does not know.
    #[error("token {index} has type {got}; types are 1 to 6")]
    TokenType {
        /// Id of the token.
        index: usize,
        /// The number found.
        got: i64,
    },
    /// Two lists that must be equally long are not.
    #[error("{list} has {got} entries for {want} tokens")]
    Length {
        /// The list.
        list: &'static str,
        /// Its length.
        got: usize,
        /// Number of tokens.
        want: usize,
    },
    /// A token without text, or a special token that cannot be matched.
    #[error("token {id} has no text")]
    EmptyToken {
        /// The token.
        id: u32,
    },
    /// The vocabulary has no token.
    #[error("it holds no token")]
    Empty,
}
