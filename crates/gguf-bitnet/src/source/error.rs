//! Defects that both container formats share, and paths that hold no model.

use super::file_kind::FileKind;
use super::zero_tail::ZeroTail;
use crate::shown::Shown;

/// A defect of a file or directory of tensors that does not depend on its format.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum SourceError {
    /// The file has no bytes.
    #[error("the file is empty: download or write it again")]
    EmptyFile,
    /// The file ends inside its header.
    #[error(
        "the header is cut off: {what} at byte {at} needs {need} bytes, {have} are left; \
         the file is incomplete, fetch it again"
    )]
    TruncatedHeader {
        what: &'static str,
        /// Position in the file.
        at: u64,
        need: u64,
        have: u64,
    },
    /// A name that occurs twice.
    #[error("two tensors have this name: write the file again with unique names")]
    DuplicateTensor,
    /// A dimension of length zero.
    #[error("dimension {dim} has length 0: a stored tensor has at least one element")]
    ZeroDimension {
        /// Index of the dimension, in file order.
        dim: usize,
    },
    /// Data that starts after the end of the file.
    #[error(
        "its data starts at offset {offset}, the file has only {data_bytes} bytes of data; \
         the file is damaged or incomplete, fetch it again"
    )]
    OffsetPastEnd {
        /// Offset from the start of the data.
        offset: u64,
        /// Bytes of data in the file.
        data_bytes: u64,
    },
    /// Data that ends after the end of the file.
    #[error("its data is cut off: {need} bytes needed, {have} are left; the file is incomplete, fetch it again")]
    TruncatedData {
        /// Bytes the tensor needs.
        need: u64,
        /// Bytes left in the file.
        have: u64,
    },
    /// Data that shares bytes with another tensor.
    #[error("its data overlaps that of tensor `{}`: the file is damaged", Shown(other))]
    Overlap {
        /// The tensor it shares bytes with.
        other: String,
    },
    /// An index beyond the last tensor.
    #[error("there is no tensor number {index}: the file has {n_tensors}")]
    NoTensor {
        /// The index asked for.
        index: usize,
        /// How many there are.
        n_tensors: usize,
    },
    /// A file whose header cannot be read because its end was never written.
    #[error("its header cannot be read, and {tail}")]
    ZeroTail { tail: ZeroTail },
    /// A file whose bytes are not recognised.
    #[error("not a model: the file is neither GGUF nor safetensors")]
    NotAModel,
    /// A file of another kind.
    #[error("{kind}")]
    OtherFile { kind: FileKind },
    /// A directory without files.
    #[error("the directory is empty: put the model's files there or give another path")]
    EmptyDirectory,
    /// A directory of other files.
    #[error("not a model: the directory holds neither a `.safetensors` nor a `.gguf` file")]
    NoModelFiles,
    /// Several checkpoints in one directory.
    #[error(
        "the directory holds several checkpoints ({files}): keep one of them, or name the file itself; in the Hugging \
         Face cache that is `organisation/name/FILE` or `organisation/name:TYPE`, such as `:Q8_0`"
    )]
    AmbiguousDirectory {
        /// Names of the candidates.
        files: String,
    },
}
