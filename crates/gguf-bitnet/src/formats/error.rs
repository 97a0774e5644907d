//! Elements, rows and ids that do not fit a storage format.

use super::tensor_type::TensorType;

/// A defect of stored or given weights, or of their type.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum FormatError {
    /// A type id outside of the format.
    #[error("type id {id} is unknown: the file is damaged or of a newer format")]
    UnknownType { id: u32 },
    /// A type of the format that this crate does not decode.
    #[error("type {name} (id {id}) is not supported; {remedy}")]
    UnsupportedType {
        id: u32,
        /// The name that the GGML format gives the type.
        name: &'static str,
        remedy: &'static str,
    },
    /// A row that does not divide into the type's blocks.
    #[error("rows of {cols} elements are no multiple of {ty}'s block of {block}: store them in another type")]
    RowNotBlocks { cols: usize, ty: TensorType, block: usize },
    /// A whole-tensor type where rows are needed.
    #[error("{ty} is laid out over the whole tensor: it has no separate rows, decode all of it")]
    NoRows { ty: TensorType },
    /// An element count that a whole-tensor layout cannot hold.
    #[error("{elements} elements are no multiple of {ty}'s group of {group}")]
    NotGroups {
        /// Elements of the tensor.
        elements: u64,
        ty: TensorType,
        group: u64,
    },
    /// More elements or bytes than this machine can count.
    #[error("the shape {shape:?} has more elements than can be addressed: the file is damaged")]
    ShapeOverflow { shape: Vec<u64> },
    /// Bytes of another length than the elements need.
    #[error("{elements} elements of {ty} take {expected} bytes, got {got}")]
    DataLength { ty: TensorType, elements: usize, expected: u64, got: u64 },
    /// Ternary data that cannot be decoded, or weights that cannot be made ternary.
    #[error(transparent)]
    Ternary(#[from] ternary_core::Error),
    /// A type without trits where trits are read or written.
    #[error("{ty} has no trits that could be converted: quantise the original model instead")]
    NotTernary { ty: TensorType },
    /// Code 3 in a type that gives it a value.
    #[error(
        "weight {at} is 2 times its scale (code 3 of {ty}), so the tensor is not ternary: run it as it is, or quantise the original"
    )]
    NotATrit {
        ty: TensorType,
        /// Index in the tensor.
        at: u64,
    },
    /// Groups with different scales that one scale would have to replace.
    #[error("row {row} has scales of {a} and {b} where {ty} has one: choose a type with smaller blocks")]
    ScalesDiffer { ty: TensorType, row: u64, a: f32, b: f32 },
    /// An F32 scale for a type that stores F16.
    #[error("the scale {scale} is no F16 number, and {ty} stores scales as F16: choose I2_S or IQ2_BN")]
    ScaleNotF16 { ty: TensorType, scale: f32 },
    /// A type that is read only.
    #[error("{ty} cannot be written: choose F32, F16, BF16, Q8_0, Q6_K, Q2_0, TQ1_0, TQ2_0 or BITNET_T158")]
    NotWritable { ty: TensorType },
    /// A value that is NaN or infinite, or too large for the type.
    #[error("element {at} is {value}, which {ty} cannot hold: repair the weights")]
    NotRepresentable {
        ty: TensorType,
        /// Index in the row.
        at: usize,
        value: f32,
    },
    /// Importances of another length than the row.
    #[error("{got} importances for a row of {cols} elements: give one per element")]
    ImportanceLength {
        /// Elements of the row.
        cols: usize,
        got: usize,
    },
    /// An importance that is negative, NaN or infinite.
    #[error("the importance of element {at} is {value}: it must be finite and not negative, recompute the statistics")]
    BadImportance {
        /// Index in the row.
        at: usize,
        value: f32,
    },
}
