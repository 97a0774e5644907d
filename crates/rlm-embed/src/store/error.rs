//! Index files that cannot be used, and changes that do not fit an index.

use std::path::PathBuf;

/// A defect of an index file or of a change to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum IndexError {
    #[error("{}: is no index of this program: give a file that `bitnet index build` wrote", path.display())]
    NotAnIndex { path: PathBuf },
    #[error("{}: has version {got} of the index format, this program reads 1: build the index again", path.display())]
    Version { path: PathBuf, got: u32 },
    #[error("{}: is damaged at byte {offset} ({defect}) and complete behind it: build the index again", path.display())]
    Damaged { path: PathBuf, offset: usize, defect: &'static str },
    #[error("{}: contradicts itself ({defect}): build the index again", path.display())]
    Inconsistent { path: PathBuf, defect: &'static str },
    #[error("{}: another process changes this index: wait for it or stop it", path.display())]
    Busy { path: PathBuf },
    #[error("{}: was built by another embedder: use the model, precision and settings of its first build", path.display())]
    OtherEmbedder { path: PathBuf },
    #[error("{n} chunks need {expected} values of vectors, not {got}")]
    Vectors { n: usize, expected: usize, got: usize },
    #[error("a vector of chunk `{id}` holds a number that is not finite")]
    NotFinite { id: String },
    #[error("the chunk `{id}` is in the index already: remove it first")]
    Duplicate { id: String },
    #[error("the chunk `{id}` is not in the index")]
    NoSuchChunk { id: String },
    #[error(
        "the {what} of chunk `{id}` has {got} bytes, at most {limit} are allowed: cut the text into smaller chunks"
    )]
    TooLong { what: &'static str, id: String, got: usize, limit: usize },
    #[error("{n} chunks at once are more than {limit}: add them in several calls")]
    TooMany { n: usize, limit: usize },
}
