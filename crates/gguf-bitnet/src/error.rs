//! Everything that can be wrong with a model file, an argument or the disk: one variant per defect.
//!
//! A defect inside a tensor is wrapped in [`Error::InTensor`], one inside a file in
//! [`Error::InFile`], so the sentence a user reads names file, tensor and remedy;
//! [`Error::root`] is the defect itself.

use std::path::{Path, PathBuf};

use crate::formats::TensorType;
use crate::shown::Shown;

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A defect of a file, an argument or the environment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // --- where ---
    /// The defect lies in this file.
    #[error("{}: {error}", path.display())]
    InFile {
        /// The file that was read or written.
        path: PathBuf,
        /// What is wrong with it.
        error: Box<Error>,
    },
    /// The defect lies in this tensor.
    #[error("tensor `{}`: {error}", Shown(tensor))]
    InTensor {
        /// Name as the file spells it.
        tensor: String,
        /// What is wrong with it.
        error: Box<Error>,
    },

    // --- input and output ---
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, such as `open`.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Its reason.
        source: std::io::Error,
    },
    /// A stream refused the bytes written to it.
    #[error("cannot write the output: {source}")]
    WriteStream {
        /// The stream's reason.
        #[from]
        source: std::io::Error,
    },
    /// A path that cannot be a model file.
    #[error("{} is a directory: name the GGUF file itself", path.display())]
    IsDirectory {
        /// What was given.
        path: PathBuf,
    },

    // --- GGUF header ---
    /// The file has no bytes.
    #[error("the file is empty: download or write it again")]
    EmptyFile,
    /// The first four bytes are not `GGUF`.
    #[error("not a GGUF file: it starts with the bytes {got:02x?}, not with `GGUF`")]
    BadMagic {
        /// The bytes found.
        got: [u8; 4],
    },
    /// A file for big-endian machines.
    #[error("a big-endian GGUF file: convert it to little-endian before use")]
    BigEndian,
    /// A version this crate does not read.
    #[error("GGUF version {version} is not supported (2 and 3 are): convert the file to version 3")]
    UnsupportedVersion {
        /// The version found.
        version: u32,
    },
    /// The file ends inside its header.
    #[error(
        "the header is cut off: {what} at byte {at} needs {need} bytes, {have} are left; \
         the file is incomplete, fetch it again"
    )]
    TruncatedHeader {
        /// What was being read.
        what: &'static str,
        /// Position in the file.
        at: u64,
        /// Bytes needed there.
        need: u64,
        /// Bytes left there.
        have: u64,
    },
    /// A header longer than any model's.
    #[error("the header is longer than {limit} bytes, more than any model needs: the file is damaged")]
    HeaderTooLong {
        /// The most bytes that are read.
        limit: u64,
    },
    /// A count that the rest of the file cannot hold, or beyond what is read of any file.
    #[error(
        "the header claims {count} {what}, at most {max} are possible here; \
         the file is damaged or incomplete, fetch it again"
    )]
    CountTooLarge {
        /// What is counted.
        what: &'static str,
        /// The claim.
        count: u64,
        /// The most that fit.
        max: u64,
    },
    /// A string longer than the rest of the file.
    #[error(
        "{what} at byte {at} claims {len} bytes, {have} are left; \
         the file is damaged or incomplete, fetch it again"
    )]
    StringTooLong {
        /// What the string is.
        what: &'static str,
        /// Position in the file.
        at: u64,
        /// The claim.
        len: u64,
        /// Bytes left there.
        have: u64,
    },
    /// A string that is not UTF-8.
    #[error("{what} at byte {at} is not UTF-8: the file is damaged")]
    NotUtf8 {
        /// What the string is.
        what: &'static str,
        /// Position in the file.
        at: u64,
    },

    // --- metadata ---
    /// A metadata key of no characters.
    #[error("an empty metadata key: the file is damaged or its writer broken")]
    EmptyKey,
    /// A metadata key that occurs twice.
    #[error("metadata key `{}` occurs twice: write the file again with unique keys", Shown(key))]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A value type outside of the specification.
    #[error("metadata key `{}` has the unknown value type {id}: the file is damaged", Shown(key))]
    UnknownValueType {
        /// The key.
        key: String,
        /// The type id found.
        id: u32,
    },
    /// A truth value other than 0 and 1.
    #[error("metadata key `{}` holds the truth value {got}, only 0 and 1 exist", Shown(key))]
    InvalidBool {
        /// The key.
        key: String,
        /// The byte found.
        got: u8,
    },
    /// An array of arrays.
    #[error("metadata key `{}` is an array of arrays, which is not supported: flatten it", Shown(key))]
    NestedArray {
        /// The key.
        key: String,
    },
    /// A value of another type than the reader needs.
    #[error("metadata key `{key}` is {got}, expected {expected}: the file's writer is wrong")]
    MetadataType {
        /// The key.
        key: String,
        /// The type asked for.
        expected: &'static str,
        /// The type in the file.
        got: &'static str,
    },
    /// A number that does not fit the type the reader needs.
    #[error("metadata key `{key}` is {got}, which does not fit {expected}")]
    MetadataRange {
        /// The key.
        key: String,
        /// The type asked for.
        expected: &'static str,
        /// The number in the file.
        got: String,
    },
    /// A key that must be there is not.
    #[error("metadata key `{key}` is missing: the file's writer left it out")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// `general.alignment` is not a U32.
    #[error("`general.alignment` is {got}, expected u32: the file's writer is wrong")]
    AlignmentType {
        /// The type in the file.
        got: &'static str,
    },
    /// `general.alignment` is zero or no power of two.
    #[error("`general.alignment` is {alignment}: it must be a power of two such as 32")]
    BadAlignment {
        /// The value found.
        alignment: u32,
    },

    // --- tensor infos ---
    /// A tensor without a name.
    #[error("a tensor has an empty name: the file is damaged or its writer broken")]
    EmptyTensorName,
    /// A name that occurs twice.
    #[error("two tensors have this name: write the file again with unique names")]
    DuplicateTensor,
    /// A name that GGUF does not allow.
    #[error("the name has {len} bytes, GGUF allows at most 63: shorten it")]
    NameTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// No dimensions, or more than four.
    #[error("it has {n} dimensions, GGUF allows 1 to 4")]
    DimensionCount {
        /// The count found.
        n: u64,
    },
    /// A dimension of length zero.
    #[error("dimension {dim} has length 0: a stored tensor has at least one element")]
    ZeroDimension {
        /// Which one, in file order.
        dim: usize,
    },
    /// More elements or bytes than this machine can count.
    #[error("the shape {shape:?} has more elements than can be addressed: the file is damaged")]
    ShapeOverflow {
        /// The dimensions found.
        shape: Vec<u64>,
    },
    /// A type id outside of the format.
    #[error("type id {id} is unknown: the file is damaged or of a newer format")]
    UnknownType {
        /// The id found.
        id: u32,
    },
    /// A type of the format that this crate does not decode.
    #[error(
        "type {name} (id {id}) is not supported: \
         use a file of type F16, BF16, Q8_0, Q4_K, Q6_K, TQ1_0 or TQ2_0 instead"
    )]
    UnsupportedType {
        /// The id found.
        id: u32,
        /// The format's name for it.
        name: &'static str,
    },
    /// A row that does not divide into the type's blocks.
    #[error("rows of {cols} elements are no multiple of {ty}'s block of {block}: store them in another type")]
    RowNotBlocks {
        /// Elements per row.
        cols: usize,
        /// The type.
        ty: TensorType,
        /// Its block length.
        block: usize,
    },
    /// A whole-tensor type where rows are needed.
    #[error("{ty} is laid out over the whole tensor: it has no separate rows, decode all of it")]
    NoRows {
        /// The type.
        ty: TensorType,
    },
    /// An element count that a whole-tensor layout cannot hold.
    #[error("{elements} elements are no multiple of {ty}'s group of {group}")]
    NotGroups {
        /// Elements of the tensor.
        elements: u64,
        /// The type.
        ty: TensorType,
        /// Its group length.
        group: u64,
    },
    /// Data that does not start at a multiple of the alignment.
    #[error("its data offset {offset} is no multiple of the alignment {alignment}: write the file again")]
    MisalignedOffset {
        /// Offset from the start of the data.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
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
    /// Type id 30 or 29 in a craftsman file whose span fits neither or both meanings.
    #[error(
        "type id {id} spans {span} bytes for {elements} weights, which fits {reading}: \
         export the file again with standard type ids"
    )]
    AmbiguousType {
        /// The id found.
        id: u32,
        /// Bytes up to the next tensor.
        span: u64,
        /// Weights of the tensor.
        elements: u64,
        /// `both BF16 and BITNET_T158`, or `neither`.
        reading: &'static str,
    },

    // --- split files ---
    /// A file of a split set that was handed over without its path.
    #[error("one of {count} parts of a split file: open it by its path, beside the other parts")]
    SplitNeedsPath {
        /// Number of parts.
        count: u64,
    },
    /// The file name does not follow `NAME-00001-of-0000N.gguf`.
    #[error("part {no} of {count} of a split file must be named `NAME-{no:05}-of-{count:05}.gguf`: rename it")]
    SplitName {
        /// One-based number of the part.
        no: u64,
        /// Number of parts.
        count: u64,
    },
    /// A part of the set is not there.
    #[error("the split file lacks its part {}: put all parts in one directory", path.display())]
    SplitPartMissing {
        /// The absent file.
        path: PathBuf,
    },
    /// A part whose metadata does not belong here.
    #[error("split metadata `{key}` is {got}, expected {expected}: the parts are not of one set")]
    SplitMismatch {
        /// The key.
        key: &'static str,
        /// What the set needs.
        expected: u64,
        /// What the part says.
        got: u64,
    },

    /// A set whose metadata stand in its first part only.
    #[error("the model is split into {count} files; metadata can be replaced in a single file only: merge them first")]
    SplitRewrite {
        /// Number of parts.
        count: usize,
    },
    /// Not the model that was meant.
    #[error("the model has changed: its identity is {got}, not {expected}; evaluate it again")]
    IdentityChanged {
        /// BLAKE3 of the model that was meant.
        expected: String,
        /// That of the file.
        got: String,
    },

    // --- reading tensors ---
    /// An index that is no tensor.
    #[error("there is no tensor number {index}: the file has {n_tensors}")]
    NoTensor {
        /// The index asked for.
        index: usize,
        /// How many there are.
        n_tensors: usize,
    },
    /// Bytes of another length than the elements need.
    #[error("{elements} elements of {ty} take {expected} bytes, got {got}")]
    DataLength {
        /// The type.
        ty: TensorType,
        /// Elements asked for.
        elements: usize,
        /// Bytes they take.
        expected: u64,
        /// Bytes given.
        got: u64,
    },
    /// Ternary data that cannot be decoded, or weights that cannot be made ternary.
    #[error(transparent)]
    Ternary(#[from] ternary_core::Error),

    // --- encoding and writing ---
    /// A type that is read only.
    #[error("{ty} cannot be written: choose F32, F16, BF16, Q8_0, Q6_K, TQ1_0, TQ2_0 or BITNET_T158")]
    NotWritable {
        /// The type.
        ty: TensorType,
    },
    /// A value that is NaN or infinite, or too large for the type.
    #[error("element {at} is {value}, which {ty} cannot hold: repair the weights")]
    NotRepresentable {
        /// The type.
        ty: TensorType,
        /// Index in the row.
        at: usize,
        /// The value.
        value: f32,
    },
    /// Importances of another length than the row.
    #[error("{got} importances for a row of {cols} elements: give one per element")]
    ImportanceLength {
        /// Elements of the row.
        cols: usize,
        /// Importances given.
        got: usize,
    },
    /// An importance that weighs nothing sensible.
    #[error("the importance of element {at} is {value}: it must be finite and not negative, recompute the statistics")]
    BadImportance {
        /// Index in the row.
        at: usize,
        /// The value.
        value: f32,
    },
    /// Tensor data written out of order, too long or too short.
    #[error("{got} bytes of tensor data written, the file's layout has {expected} at this point")]
    WrongAmount {
        /// What the layout says.
        expected: u64,
        /// What was written.
        got: u64,
    },
    /// A tensor written out of turn.
    #[error("tensor number {got} written, number {expected} is next: write them in order")]
    WrongOrder {
        /// Index of the tensor whose turn it is.
        expected: usize,
        /// Index given.
        got: usize,
    },

    // --- names, catalogs, jobs ---
    /// Two stored tensors that are the same part of the model.
    #[error("`{}` and `{}` both provide it: remove one of the two from the model", Shown(first), Shown(second))]
    NameConflict {
        /// Name of one of them in the file.
        first: String,
        /// Name of the other.
        second: String,
    },
    /// Experts are numbered with a gap.
    #[error(
        "expert {missing} is missing although expert {last} is there: the checkpoint is incomplete, fetch it again"
    )]
    ExpertGap {
        /// The lowest absent index.
        missing: usize,
        /// The highest index present.
        last: usize,
    },
    /// An expert whose matrix differs from that of expert 0.
    #[error("expert {expert} has shape {got:?}, expert 0 has {expected:?}: all must be equal matrices")]
    ExpertShape {
        /// The expert.
        expert: usize,
        /// Shape of expert 0.
        expected: Vec<usize>,
        /// Shape found.
        got: Vec<usize>,
    },
    /// A fused key/value expansion that does not divide into the heads of the configuration.
    #[error(
        "shape {shape:?} does not divide into {n_heads} heads of {qk_nope} key rows and {v_head} value rows: \
         the configuration does not belong to these weights"
    )]
    KvBShape {
        /// Shape found.
        shape: Vec<usize>,
        /// Heads of the configuration.
        n_heads: usize,
        /// Key rows per head.
        qk_nope: usize,
        /// Value rows per head.
        v_head: usize,
    },
    /// A fused gate and up matrix that has no two halves.
    #[error("shape {shape:?} does not divide into gate and up halves: an even number of rows is needed")]
    GateUpShape {
        /// Shape found.
        shape: Vec<usize>,
    },
    /// A part of a tensor whose type cannot be cut by rows.
    #[error("{ty} is laid out over the whole tensor and cannot be cut into parts: store it in another type")]
    NotDivisible {
        /// The type.
        ty: TensorType,
    },
    /// A weight that is no number.
    #[error("row {row} holds NaN or infinite weights: the checkpoint is damaged, fetch or train it again")]
    NotFinite {
        /// Row of the tensor flattened to `[rows, cols]`.
        row: usize,
    },
    /// Rows outside of a tensor.
    #[error("rows {start}..{end} asked for, it has {rows}")]
    RowRange {
        /// First row asked for.
        start: usize,
        /// One past the last.
        end: usize,
        /// Rows of the flattened tensor.
        rows: usize,
    },
    /// A matrix index outside of a stack.
    #[error("matrix {outer} asked for, it has {count}")]
    OuterRange {
        /// The index asked for.
        outer: usize,
        /// Matrices of the stack.
        count: usize,
    },
    /// A buffer of another length than the rows asked for.
    #[error("the buffer holds {got} elements, {expected} are read: give one of that length")]
    BufferLength {
        /// Elements to be read.
        expected: usize,
        /// Elements of the buffer.
        got: usize,
    },
    /// Tensors the model must have are not there.
    #[error("{count} tensors are missing, first `{first}`: the model is incomplete or of another architecture")]
    MissingTensors {
        /// How many.
        count: usize,
        /// The first of them.
        first: String,
    },
    /// Tensors that no part of the model uses, so that ignoring them would change its results.
    #[error(
        "{count} tensors are not part of the architecture, first `{}`: the model is of another architecture",
        Shown(first)
    )]
    UnexpectedTensors {
        /// How many.
        count: usize,
        /// The first of them.
        first: String,
    },
    /// A tensor of another shape than the configuration implies.
    #[error("shape {got:?}, the configuration implies {expected:?}: configuration and weights do not belong together")]
    WrongShape {
        /// What the configuration implies.
        expected: Vec<usize>,
        /// What the file has.
        got: Vec<usize>,
    },

    // --- safetensors ---
    /// The length of the header does not fit the file or the format's limit.
    #[error(
        "not a readable safetensors file: it claims a header of {len} bytes, the file has {file_bytes} bytes \
         and the limit is {limit}; fetch it again"
    )]
    HeaderLength {
        /// The claim.
        len: u64,
        /// Size of the file.
        file_bytes: u64,
        /// The format's limit.
        limit: u64,
    },
    /// The header is not the JSON it should be.
    #[error("the safetensors header is invalid: {}; fetch the file again", Shown(&source.to_string()))]
    HeaderJson {
        /// Where and what.
        source: serde_json::Error,
    },
    /// An element type this crate does not read.
    #[error("element type {} is not supported: convert the checkpoint to BF16, F16 or F32", Shown(dtype))]
    UnsupportedDtype {
        /// The type found.
        dtype: String,
    },
    /// Offsets that run backwards.
    #[error("its data offsets {begin}..{end} run backwards: the file is damaged")]
    ReversedSpan {
        /// First byte.
        begin: u64,
        /// One past the last byte.
        end: u64,
    },
    /// Offsets that do not enclose what the shape needs.
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
        /// How many.
        bytes: u64,
    },
    /// A tensor that two shards hold.
    #[error("it is also in {}: the shards do not belong together", other.display())]
    DuplicateInShards {
        /// The other file.
        other: PathBuf,
    },
    /// An index that is not the JSON it should be.
    #[error("the shard index is invalid: {}; fetch it again", Shown(&source.to_string()))]
    IndexJson {
        /// Where and what.
        source: serde_json::Error,
    },
    /// An index that names no tensor.
    #[error("the shard index lists no tensors: fetch it again")]
    IndexEmpty,
    /// An index that points out of its directory.
    #[error(
        "the shard index places it in `{}`, which is not a plain file name: the index is not trustworthy",
        Shown(file)
    )]
    IndexEscape {
        /// What the index says.
        file: String,
    },
    /// A tensor that is not where the index says.
    #[error("the shard index places it in `{}`, which does not hold it: fetch the checkpoint again", Shown(file))]
    IndexMismatch {
        /// The file the index names.
        file: String,
    },
    /// A shard that is not there.
    #[error("the shard `{}` is missing: fetch the rest of the checkpoint", Shown(file))]
    ShardMissing {
        /// Its file name.
        file: String,
    },
    /// Several checkpoints in one directory.
    #[error("the directory holds several checkpoints ({files}): keep one of them, or name the file itself")]
    AmbiguousDirectory {
        /// Names of the candidates.
        files: String,
    },

    // --- finding a model ---
    /// Nothing at the path, and no model of this name in the cache.
    #[error("there is no model `{spec}`: give an existing file or directory, or `organisation/name` of a cached model")]
    NoSuchModel {
        /// What was asked for.
        spec: String,
    },
    /// A name of the Hugging Face cache that is not there.
    #[error(
        "there is no file or directory `{spec}`, and no model of this name at {}: \
         download it first, this program never does",
        looked.display()
    )]
    NotCached {
        /// What was asked for.
        spec: String,
        /// Where the cache would hold it.
        looked: PathBuf,
    },
    /// A cached model whose files are not all there.
    #[error("the cached model has no usable snapshot ({what}): download it again")]
    BrokenCache {
        /// What is wrong.
        what: &'static str,
    },
    /// A directory without files.
    #[error("the directory is empty: put the model's files there or give another path")]
    EmptyDirectory,
    /// A directory of other files.
    #[error("not a model: the directory holds neither a `.safetensors` nor a `.gguf` file")]
    NoModelFiles,
    /// A file of another kind.
    #[error("not a model: the file is neither GGUF nor safetensors")]
    NotAModel,

    // --- output and jobs ---
    /// An output path that cannot be written.
    #[error("cannot be an output file: {why}")]
    BadOutput {
        /// The reason, with the remedy.
        why: &'static str,
    },
    /// The output is already there.
    #[error("already exists: choose another name or pass --force to replace it")]
    OutputExists,
    /// The disk is too full.
    #[error("{need} bytes are needed on this disk, {have} are free: make room or choose another place")]
    NotEnoughSpace {
        /// Bytes needed.
        need: u64,
        /// Bytes free.
        have: u64,
    },
    /// An unfinished job with other settings or inputs.
    #[error(
        "holds an unfinished job whose `{key}` is {stored}, now it is {given}: \
         repeat the first command, or pass --force to start over"
    )]
    ManifestMismatch {
        /// Dotted path of the first differing key.
        key: String,
        /// Value of the unfinished job, `absent` where it has none.
        stored: String,
        /// Value of this one.
        given: String,
    },
    /// An unfinished job that cannot be understood.
    #[error("holds an unfinished job that cannot be read ({what}): pass --force to start over")]
    JobDamaged {
        /// What is wrong.
        what: &'static str,
    },
    /// Files in the job's directory that are not the job's.
    #[error("holds `{file}`, which is no file of an unfinished job: move it elsewhere")]
    JobForeignFile {
        /// The stranger.
        file: String,
    },
    /// Another process is at it.
    #[error("another process is working on this output: wait for it or stop it")]
    JobBusy,
    /// A call on a job that has been committed or has failed.
    #[error("the job has ended: open it again")]
    JobEnded,
}

impl Error {
    /// The defect itself, without the file and the tensor it lies in.
    pub fn root(&self) -> &Error {
        match self {
            Error::InFile { error, .. } | Error::InTensor { error, .. } => error.root(),
            other => other,
        }
    }

    /// The tensor the defect lies in, if it lies in one.
    pub fn tensor(&self) -> Option<&str> {
        match self {
            Error::InFile { error, .. } => error.tensor(),
            Error::InTensor { tensor, .. } => Some(tensor),
            _ => None,
        }
    }

    /// Names the file the defect lies in, unless that is already known.
    #[must_use]
    pub fn in_file(self, path: impl AsRef<Path>) -> Error {
        match self {
            Error::InFile { .. } | Error::Io { .. } | Error::SplitPartMissing { .. } => self,
            error => Error::InFile { path: path.as_ref().to_owned(), error: Box::new(error) },
        }
    }

    /// Names the tensor the defect lies in.
    #[must_use]
    pub fn in_tensor(self, tensor: impl Into<String>) -> Error {
        Error::InTensor { tensor: tensor.into(), error: Box::new(self) }
    }

    /// For `map_err`: names the file and what was tried with it.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { action, path: path.as_ref().to_owned(), source }
    }
}
