//! Stored tensors that do not make up the tensors of the model.

use crate::formats::TensorType;
use crate::shown::Shown;

/// A defect of the tensors of a model, or a read outside of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum NamesError {
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
        expert: usize,
        /// Shape of expert 0.
        expected: Vec<usize>,
        got: Vec<usize>,
    },
    /// A fused key/value expansion that does not divide into the heads of the configuration.
    #[error(
        "shape {shape:?} does not divide into {n_heads} heads of {qk_nope} key rows and {v_head} value rows: \
         the configuration does not belong to these weights"
    )]
    KvBShape {
        shape: Vec<usize>,
        /// Heads of the configuration.
        n_heads: usize,
        /// Key rows per head.
        qk_nope: usize,
        /// Value rows per head.
        v_head: usize,
    },
    /// Rows that do not divide into heads of two halves.
    #[error(
        "shape {shape:?} does not divide into heads of {head} rows in two halves: the configuration does not belong to these \
         weights"
    )]
    HeadShape {
        shape: Vec<usize>,
        /// Rows of a head.
        head: usize,
    },
    /// A fused gate and up matrix that has no two halves.
    #[error("shape {shape:?} does not divide into gate and up halves: an even number of rows is needed")]
    GateUpShape { shape: Vec<usize> },
    /// A part of a tensor whose type cannot be cut by rows.
    #[error("{ty} is laid out over the whole tensor and cannot be cut into parts: store it in another type")]
    NotDivisible { ty: TensorType },
    /// A weight that is NaN or infinite.
    #[error("row {row} holds NaN or infinite weights: the checkpoint is damaged, fetch or train it again")]
    NotFinite {
        /// Row of the tensor flattened to `[rows, cols]`.
        row: usize,
    },
    /// A scale that is no positive number.
    #[error(
        "scale {at} in `{}` is {value}, not a positive number: the checkpoint is damaged, fetch it again",
        Shown(scale)
    )]
    ScaleValue {
        /// Name of the tensor of scales.
        scale: String,
        /// Index in the flattened tensor of scales.
        at: usize,
        value: f32,
    },
    /// Rows outside of a tensor.
    #[error("rows {start}..{end} asked for, it has {rows}")]
    RowRange {
        /// First row asked for.
        start: usize,
        /// One past the last row.
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
    /// Tensors that the model must have are missing.
    #[error("{count} tensors are missing, first `{first}`: the model is incomplete or of another architecture")]
    MissingTensors {
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
        count: usize,
        /// The first of them.
        first: String,
    },
    /// A tensor of another shape than the configuration implies.
    #[error("shape {got:?}, the configuration implies {expected:?}: configuration and weights do not belong together")]
    WrongShape { expected: Vec<usize>, got: Vec<usize> },
}
