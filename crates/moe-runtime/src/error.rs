//! What can go wrong between a model file and its tokens; every message says what to do about it.

use mla_attention::CacheError;

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
    /// Position scaling, which would change every angle.
    #[error("position scaling `{kind}` (`{key}`) is not supported; use a model with plain rotary positions")]
    RopeScaling {
        /// The key that asks for it.
        key: String,
        /// Its value.
        kind: String,
    },
    /// A tensor the model needs is not in its file.
    #[error(
        "the model lacks the tensor `{tensor}`; the file is incomplete or belongs to another model: fetch it again"
    )]
    MissingTensor {
        /// Canonical name.
        tensor: String,
    },
    /// A tensor has other dimensions than the configuration says.
    #[error(
        "`{tensor}` has the shape {got:?}, but the configuration asks for {expected:?}; the file and its configuration do not belong together"
    )]
    Shape {
        /// Canonical name.
        tensor: String,
        /// Row-major dimensions.
        expected: Vec<usize>,
        /// Row-major dimensions.
        got: Vec<usize>,
    },
    /// A tensor that no kernel can compute with.
    #[error("tensor `{tensor}` cannot be used: {source}; run `bitnet verify` on the model")]
    Weight {
        /// Canonical name.
        tensor: String,
        /// What the kernel said.
        source: tl_kernels::Error,
    },
    /// A file of tiles that cannot be used.
    #[error("the layout cache {} {defect}", path.display())]
    TileCache {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        defect: TileCacheDefect,
    },
    /// Tiles that are not what they were when they were written.
    #[error(
        "the tiles of `{tensor}` in the layout cache {} are damaged; delete that file, the next start makes it anew",
        cache.display()
    )]
    DamagedTiles {
        /// Canonical name.
        tensor: String,
        /// The file.
        cache: std::path::PathBuf,
    },
    /// Tiles that were just packed and failed their self-test.
    #[error(
        "the tiles of layer {layer} fail their self-test on this machine; please report `bitnet doctor --model FILE`"
    )]
    UntestedTiles {
        /// The layer.
        layer: usize,
    },
    /// Memory could not be had.
    #[error("{bytes} bytes for {what} cannot be allocated; close other programs or choose a smaller model or context")]
    Memory {
        /// What it was for.
        what: String,
        /// How much.
        bytes: usize,
    },
    /// More memory would be needed than was allowed.
    #[error(
        "the model needs {need} bytes ({detail}), but only {allowed} are allowed; choose a shorter context or a smaller model"
    )]
    MemoryLimit {
        /// Bytes needed.
        need: u64,
        /// Bytes allowed.
        allowed: u64,
        /// The sum.
        detail: String,
    },
    /// A routing that was forced from outside does not fit the layer.
    #[error("a forced routing names {what} {got}, but the layer has {limit}; correct the override")]
    Routing {
        /// What does not fit.
        what: &'static str,
        /// Value given.
        got: usize,
        /// Value of the layer.
        limit: usize,
    },
    /// A token id outside of the vocabulary.
    #[error("token {token} is not in the vocabulary of {vocab}; use the tokenizer that belongs to the model")]
    Token {
        /// The id.
        token: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// A prompt, or a prompt and its answer, are longer than the context.
    #[error("{need} tokens do not fit the context of {have}; shorten the prompt or start with a larger context (-c)")]
    ContextFull {
        /// Tokens the context holds.
        have: usize,
        /// Tokens that were to be held.
        need: usize,
    },
    /// A context that the model was not made for.
    #[error(
        "a context of {asked} tokens is more than the {made_for} the model was made for; choose at most {made_for}"
    )]
    ContextTooLong {
        /// Tokens asked for.
        asked: usize,
        /// The model's own limit.
        made_for: usize,
    },
    /// There was nothing to compute.
    #[error("there are no tokens to compute; give a prompt")]
    NoTokens,
    /// A model directory without its configuration.
    #[error("{} cannot be read: {source}; a checkpoint directory needs its config.json", path.display())]
    ConfigFile {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The model a failure is about.
    #[error("{}: {error}", path.display())]
    InModel {
        /// Its file, or the configuration of its directory.
        path: std::path::PathBuf,
        /// The failure.
        error: Box<Error>,
    },
    /// The file could not be read.
    #[error(transparent)]
    Source(#[from] gguf_bitnet::Error),
    /// Attention could not be built or run.
    #[error(transparent)]
    Attention(mla_attention::Error),
    /// A kernel refused its input.
    #[error(transparent)]
    Kernel(#[from] tl_kernels::Error),
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

/// Why a file of tiles cannot be used.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TileCacheDefect {
    /// Something else has the name.
    #[error("is a file of another kind, which is kept; give the cache another name")]
    Foreign,
    /// The key differs.
    #[error("was made from another model, from another state of its file, or by another version")]
    OtherModel,
    /// The file was cut off or grew.
    #[error("has {got} bytes instead of {expected}")]
    Length {
        /// Bytes that the model's tiles take with their header.
        expected: u64,
        /// Bytes of the file.
        got: u64,
    },
    /// A digest does not fit.
    #[error("is damaged")]
    Damaged,
    /// The self-test found other numbers than in the rows of the model.
    #[error("holds other weights than the model")]
    OtherRows,
    /// The model did not come from a GGUF file.
    #[error("cannot be made: only GGUF files have one")]
    NoFile,
    /// Nothing to keep.
    #[error("is not needed: there are no ternary weights to pack, or activations are not quantised")]
    NoTiles,
}

impl TileCacheDefect {
    /// The failure of the file `path`.
    pub(crate) fn at(self, path: &std::path::Path) -> Error {
        Error::TileCache { path: path.to_owned(), defect: self }
    }
}

impl From<mla_attention::Error> for Error {
    /// A full context is told as this crate's own error, so that callers match one variant.
    fn from(error: mla_attention::Error) -> Error {
        match error {
            mla_attention::Error::Cache(CacheError::Full { have, need }) => Error::ContextFull { have, need },
            other => Error::Attention(other),
        }
    }
}

impl From<CacheError> for Error {
    fn from(error: CacheError) -> Error {
        mla_attention::Error::from(error).into()
    }
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

impl Error {
    /// Names the file or directory that the failure is about, unless it is named already.
    #[must_use]
    pub fn in_model(self, path: impl AsRef<std::path::Path>) -> Error {
        match self {
            Error::InModel { .. } | Error::ConfigFile { .. } | Error::TokenizerFile { .. } => self,
            Error::Source(error) if error.names_file() => Error::Source(error),
            // A model in memory.
            error if path.as_ref().as_os_str().is_empty() => error,
            error => Error::InModel { path: path.as_ref().to_owned(), error: Box::new(error) },
        }
    }
}
