//! Checkpoints that are no sentence encoder, and texts that cannot be encoded.

use std::path::PathBuf;

/// A defect of a checkpoint folder or of a text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum EncoderError {
    #[error("{}: cannot be read ({reason}): fetch the checkpoint again", path.display())]
    Parse { path: PathBuf, reason: String },
    #[error("{}: `{key}` is {got}; supported: {supported}", path.display())]
    Unsupported { path: PathBuf, key: &'static str, got: String, supported: &'static str },
    #[error("{}: the tensor `{name}` is missing: this is no BERT encoder, or the checkpoint is incomplete", path.display())]
    MissingTensor { path: PathBuf, name: String },
    #[error("{}: the tensor `{name}` has shape {got:?}, config.json needs {expected:?}", path.display())]
    Shape { path: PathBuf, name: String, expected: Vec<usize>, got: Vec<usize> },
    #[error("{}: the tensor `{name}` holds a number that is not finite: fetch the checkpoint again", path.display())]
    NotFinite { path: PathBuf, name: String },
    #[error("{}: token {id} lies outside of the {rows} rows of the word embedding: the files do not belong together", path.display())]
    Vocabulary { path: PathBuf, id: u32, rows: usize },
    #[error(
        "{}: the post-processor adds {got} special tokens to a text, a BERT encoder needs [CLS] and [SEP]: fetch the tokenizer \
         of a sentence encoder",
        path.display()
    )]
    SpecialTokens { path: PathBuf, got: usize },
    #[error("a text of {bytes} bytes is longer than {limit}: cut it into chunks")]
    TextTooLong { bytes: usize, limit: usize },
    #[error("a text cannot be cut into tokens: {reason}")]
    Tokens { reason: String },
    #[error("{got} token ids are no text: a text has 2 to {most} ids, all below {rows}")]
    Ids { got: usize, most: usize, rows: usize },
}
