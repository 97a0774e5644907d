//! Defects of a safetensors header or of the index of a directory.

use std::path::PathBuf;

use crate::formats::TensorType;
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
    /// Shards that the directory lacks.
    #[error("shards are missing ({files}): fetch the rest of the checkpoint")]
    ShardsMissing {
        /// Names of the first ones.
        files: String,
    },
    /// A `config.json` that is not the JSON it should be.
    #[error("config.json is invalid: {}; fetch it again", Shown(&source.to_string()))]
    ConfigJson { source: serde_json::Error },
    /// A way to quantise weights that is not read.
    #[error(
        "`{key}` of quantization_config is {}, which is not read: use an FP8 checkpoint of method `fp8` or \
         `compressed-tensors` (`float-quantized`, 8 bits, one scale per tensor, channel or block), one of method `bitnet` \
         (without norms in its linear layers, and without layers left out), or the BF16 checkpoint",
        Shown(value)
    )]
    Quantization {
        key: &'static str,
        /// The value, as JSON.
        value: String,
    },
    /// Weights without the scales they need.
    #[error(
        "it needs a scale to be read: neither `{0}` nor `{0}_inv` is there; fetch all files of the checkpoint",
        Shown(scale)
    )]
    ScaleMissing {
        /// The name that the scale should have.
        scale: String,
    },
    /// Weights with scales under both names.
    #[error("both `{}` and `{}` are its scales: remove one of the two from the checkpoint", Shown(scale), Shown(other))]
    ScaleTwice { scale: String, other: String },
    /// Scales that are no floating-point numbers.
    #[error("its scale `{}` is of type {ty}: convert the checkpoint to scales of F32, F16 or BF16", Shown(scale))]
    ScaleType { scale: String, ty: TensorType },
    /// Scales of a shape that does not fit the weights.
    #[error(
        "its scale `{}` has shape {got:?}, which fits no matrix, rows or blocks of {weights:?}{}: \
         fetch the checkpoint and its config.json again",
        Shown(scale),
        in_blocks(*block)
    )]
    ScaleShape {
        scale: String,
        got: Vec<usize>,
        /// Shape of the weights.
        weights: Vec<usize>,
        /// The block of `quantization_config`.
        block: Option<[usize; 2]>,
    },
}

fn in_blocks(block: Option<[usize; 2]>) -> String {
    match block {
        Some(block) => format!(" in blocks of {block:?}"),
        None => " (config.json names no size of blocks)".to_owned(),
    }
}
