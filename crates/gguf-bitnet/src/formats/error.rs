//! Elements, rows and ids that do not fit a storage format.

use super::tensor_type::TensorType;

/// A defect of stored or given weights, or of their type.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
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
    /// More elements or bytes than this machine can count.
    #[error("the shape {shape:?} has more elements than can be addressed: the file is damaged")]
    ShapeOverflow {
        /// The dimensions found.
        shape: Vec<u64>,
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
}
