//! Defects of a safetensors header or of the index of a directory.

use std::path::PathBuf;

use crate::shown::Shown;

/// A defect of a safetensors checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum SafetensorsError {
    /// The length of the header does not fit the file or the format's limit.
    #[error(
        "not a readable safetensors file: it claims a header of {len} bytes, the file has {file_bytes} bytes \
         and the limit is {limit}; fetch it again"
    )]
    HeaderLength {
        len: u64,
        /// Size of the file.
        file_bytes: u64,
        limit: u64,
    },
    /// The header is not the JSON it should be.
    #[error("the safetensors header is invalid: {}; fetch the file again", Shown(&source.to_string()))]
    HeaderJson { source: serde_json::Error },
    /// An element type this crate does not read.
    #[error("element type {} is not supported: convert the checkpoint to BF16, F16 or F32", Shown(dtype))]
    UnsupportedDtype { dtype: String },
    /// Offsets that run backwards.
    #[error("its data offsets {begin}..{end} run backwards: the file is damaged")]
    ReversedSpan {
        begin: u64,
        /// One past the last byte.
        end: u64,
    },
    /// Offsets that enclose more or fewer bytes than shape and type take.
    #[error("its data offsets span {got} bytes, shape and type need {expected}: the file is damaged")]
    SpanMismatch {
        /// Bytes of shape and type.
        expected: u64,
        /// Bytes between the offsets.
        got: u64,
    },
    /// Bytes that belong to no tensor.
    #[error("the {bytes} bytes at data offset {at} belong to no tensor: the file is damaged")]
    Gap {
        /// Offset from the start of the data.
        at: u64,
        bytes: u64,
    },
    /// A tensor that two shards hold.
    #[error("it is also in {}: the shards do not belong together", other.display())]
    DuplicateInShards { other: PathBuf },
    /// An index that is not the JSON it should be.
    #[error("the shard index is invalid: {}; fetch it again", Shown(&source.to_string()))]
    IndexJson { source: serde_json::Error },
    /// An index that names no tensor.
    #[error("the shard index lists no tensors: fetch it again")]
    IndexEmpty,
    /// An index that points out of its directory.
    #[error(
        "the shard index places it in `{}`, which is not a plain file name: the index is not trustworthy",
        Shown(file)
    )]
    IndexEscape { file: String },
    /// A tensor that is not in the file that the index names.
    #[error("the shard index places it in `{}`, which does not hold it: fetch the checkpoint again", Shown(file))]
    IndexMismatch {
        /// The file the index names.
        file: String,
    },
    /// A shard that the directory lacks.
    #[error("the shard `{}` is missing: fetch the rest of the checkpoint", Shown(file))]
    ShardMissing { file: String },
}
