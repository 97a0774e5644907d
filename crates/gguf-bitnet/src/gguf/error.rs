//! Defects of GGUF headers, metadata and split sets, and of the calls that write a file.

use crate::formats::TensorType;
use crate::shown::Shown;

/// A defect of a GGUF file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum GgufError {
    /// The first four bytes are not `GGUF`.
    #[error("not a GGUF file: it starts with the bytes {got:02x?}, not with `GGUF`")]
    BadMagic { got: [u8; 4] },
    /// A file for big-endian machines.
    #[error("a big-endian GGUF file: convert it to little-endian before use")]
    BigEndian,
    /// A version this crate does not read.
    #[error("GGUF version {version} is not supported (2 and 3 are): convert the file to version 3")]
    UnsupportedVersion { version: u32 },
    /// A header longer than any model's.
    #[error("the header is longer than {limit} bytes, more than any model needs: the file is damaged")]
    HeaderTooLong {
        /// Largest size in bytes of a header that is read.
        limit: u64,
    },
    /// A count that the rest of the file cannot hold, or that is over the limit for any file.
    #[error(
        "the header claims {count} {what}, at most {max} are possible here; \
         the file is damaged or incomplete, fetch it again"
    )]
    CountTooLarge {
        what: &'static str,
        count: u64,
        /// The largest count that fits.
        max: u64,
    },
    /// A string longer than the rest of the file.
    #[error(
        "{what} at byte {at} claims {len} bytes, {have} are left; \
         the file is damaged or incomplete, fetch it again"
    )]
    StringTooLong {
        what: &'static str,
        /// Position in the file.
        at: u64,
        len: u64,
        have: u64,
    },
    /// A string that is not UTF-8.
    #[error("{what} at byte {at} is not UTF-8: the file is damaged")]
    NotUtf8 {
        what: &'static str,
        /// Position in the file.
        at: u64,
    },
    /// A metadata key of no characters.
    #[error("an empty metadata key: the file is damaged or its writer broken")]
    EmptyKey,
    /// A metadata key that occurs twice.
    #[error("metadata key `{}` occurs twice: write the file again with unique keys", Shown(key))]
    DuplicateKey { key: String },
    /// A value type outside of the specification.
    #[error("metadata key `{}` has the unknown value type {id}: the file is damaged", Shown(key))]
    UnknownValueType {
        key: String,
        /// The type id found.
        id: u32,
    },
    /// A truth value other than 0 and 1.
    #[error("metadata key `{}` holds the truth value {got}, only 0 and 1 exist", Shown(key))]
    InvalidBool { key: String, got: u8 },
    /// An array of arrays.
    #[error("metadata key `{}` is an array of arrays, which is not supported: flatten it", Shown(key))]
    NestedArray { key: String },
    /// A value of another type than the reader needs.
    #[error("metadata key `{key}` is {got}, expected {expected}: the file's writer is wrong")]
    MetadataType {
        key: String,
        /// The type asked for.
        expected: &'static str,
        /// The type in the file.
        got: &'static str,
    },
    /// A number that does not fit the type the reader needs.
    #[error("metadata key `{key}` is {got}, which does not fit {expected}")]
    MetadataRange {
        key: String,
        /// The type asked for.
        expected: &'static str,
        /// The number in the file.
        got: String,
    },
    /// A key that must be there is not.
    #[error("metadata key `{key}` is missing: the file's writer left it out")]
    MissingKey { key: String },
    /// `general.alignment` is not a U32.
    #[error("`general.alignment` is {got}, expected u32: the file's writer is wrong")]
    AlignmentType {
        /// The type in the file.
        got: &'static str,
    },
    /// `general.alignment` is zero or no power of two.
    #[error("`general.alignment` is {alignment}: it must be a power of two such as 32")]
    BadAlignment { alignment: u32 },
    /// A tensor without a name.
    #[error("a tensor has an empty name: the file is damaged or its writer broken")]
    EmptyTensorName,
    /// A name that GGUF does not allow.
    #[error("the name has {len} bytes, GGUF allows at most 63: shorten it")]
    NameTooLong {
        /// Length of the name in bytes.
        len: usize,
    },
    /// No dimensions, or more than four.
    #[error("it has {n} dimensions, GGUF allows 1 to 4")]
    DimensionCount { n: u64 },
    /// Data that does not start at a multiple of the alignment.
    #[error("its data offset {offset} is no multiple of the alignment {alignment}: write the file again")]
    MisalignedOffset {
        /// Offset from the start of the data.
        offset: u64,
        alignment: u64,
    },
    /// A type id with two meanings (30 and 29 in a craftsman file, 42 in any) where the span fits neither or both.
    #[error(
        "type id {id} spans {span} bytes for {elements} weights, which fits {reading}: \
         export the file again with standard type ids"
    )]
    AmbiguousType {
        id: u32,
        /// Bytes up to the next tensor.
        span: u64,
        /// Weights of the tensor.
        elements: u64,
        /// The two meanings, and whether both fit or neither.
        reading: &'static str,
    },
    /// A layout of I2_S codes that does not exist.
    #[error("craftsman.bitnet.i2s_layout is {value:?}, which is neither \"x86\" nor \"arm\": export the file again")]
    I2sLayout { value: String },
    /// Tensors in a layout of I2_S that the metadata to be written do not state.
    #[error("a tensor of type {ty} needs the metadata {key} = {value:?}: without it, readers take the other layout")]
    I2sUnstated { ty: TensorType, key: &'static str, value: &'static str },
    /// A file of a split set that was handed over without its path.
    #[error("one of {count} parts of a split file: open it by its path, beside the other parts")]
    SplitNeedsPath { count: u64 },
    /// The file name does not follow `NAME-00001-of-0000N.gguf`.
    #[error("part {no} of {count} of a split file must be named `NAME-{no:05}-of-{count:05}.gguf`: rename it")]
    SplitName {
        /// One-based number of the part.
        no: u64,
        count: u64,
    },
    /// Parts of the set are not there.
    #[error("parts of the split model are missing ({files}): put all parts in one directory")]
    SplitPartsMissing {
        /// Names of the first ones.
        files: String,
    },
    /// A part whose split metadata differs from that of its set.
    #[error("split metadata `{key}` is {got}, expected {expected}: the parts are not of one set")]
    SplitMismatch { key: &'static str, expected: u64, got: u64 },
    /// Tensor data written out of order, too long or too short.
    #[error("{got} bytes of tensor data written, the file's layout has {expected} at this point")]
    WrongAmount { expected: u64, got: u64 },
    /// A tensor written out of order.
    #[error("tensor number {got} written, number {expected} is next: write them in order")]
    WrongOrder {
        /// Index of the tensor whose turn it is.
        expected: usize,
        got: usize,
    },
}
