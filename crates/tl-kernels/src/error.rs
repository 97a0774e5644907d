//! The one error type of this crate.

use ternary_core::ActMode;

use crate::arch::Isa;
use crate::matmul::KernelKind;

/// The errors of setting up a kernel or a pool. Running one cannot fail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A matrix without rows or columns.
    #[error("a matrix of {rows} x {cols} has no elements; give both dimensions at least 1")]
    EmptyMatrix {
        /// Number of output features.
        rows: usize,
        /// Number of input features.
        cols: usize,
    },
    /// Columns that do not end in the last block of a padded ternary matrix, or activations that are not padded.
    #[error(
        "{cols} columns in ternary rows of {padded} are not read with {mode:?} activations; use INT8 activations and pad the \
         rows to the next multiple of 256"
    )]
    PaddedColumns {
        /// Input features that the layer was asked to have.
        cols: usize,
        /// Columns of the matrix with its padding.
        padded: usize,
        /// Activations of the layer.
        mode: ActMode,
    },
    /// The row length does not fit the type's block.
    #[error("rows of {cols} weights do not divide into {ty} blocks of {block}; store this matrix in another type")]
    BlockMultiple {
        /// Name of the weight type.
        ty: &'static str,
        /// Length of a row.
        cols: usize,
        /// Number of weights in a block.
        block: usize,
    },
    /// The bytes given are not the bytes the shape needs.
    #[error("a {ty} matrix of {rows} x {cols} takes {expected} bytes, got {got}; the tensor is cut off or mislabelled")]
    ByteLength {
        /// Name of the weight type.
        ty: &'static str,
        /// Number of output features.
        rows: usize,
        /// Number of input features.
        cols: usize,
        /// Bytes the shape needs.
        expected: usize,
        /// Bytes that were given.
        got: usize,
    },
    /// The shape is larger than the address space.
    #[error("a {ty} matrix of {rows} x {cols} is larger than the address space; the shape is damaged")]
    ShapeOverflow {
        /// Name of the weight type.
        ty: &'static str,
        /// Number of output features.
        rows: usize,
        /// Number of input features.
        cols: usize,
    },
    /// Factors of a low-rank addition that do not fit each other.
    #[error(
        "factors of {a} and {b} numbers make no product of {outputs} x {inputs}; give [rank, {inputs}] and [{outputs}, rank]"
    )]
    LowRankShape {
        /// Number of input features.
        inputs: usize,
        /// Number of output features.
        outputs: usize,
        /// Numbers of the first factor.
        a: usize,
        /// Numbers of the second factor.
        b: usize,
    },
    /// A row range that leaves the matrix.
    #[error("rows {start}..{end} leave a matrix of {rows} rows; ask for a range inside it")]
    RowRange {
        /// First row asked for.
        start: usize,
        /// One past the last row asked for.
        end: usize,
        /// Rows of the matrix.
        rows: usize,
    },
    /// A pool of 0 threads, or of more than the limit.
    #[error("a pool needs 1 to {max} threads, got {got}")]
    ThreadCount {
        /// Number of threads asked for.
        got: usize,
        /// Most threads a pool can have.
        max: usize,
    },
    /// The operating system gave no threads.
    #[error("the operating system did not start {threads} threads; ask for fewer")]
    ThreadPool {
        /// Number of threads asked for.
        threads: usize,
        /// The error of the system.
        source: std::io::Error,
    },
    /// No memory for the buffer that bandwidth is measured with.
    #[error("no memory for {bytes} bytes to measure the bandwidth with; close programs or ask for less")]
    ProbeMemory {
        /// Number of bytes asked for.
        bytes: usize,
    },
    /// A name that no instruction set level has.
    #[error("unknown instruction set level {name:?}; use one of {known}")]
    UnknownIsa {
        /// The name that was given.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// A level that this machine cannot run.
    #[error("this machine cannot run {isa} kernels; use {detected} or lower")]
    UnsupportedIsa {
        /// The level asked for.
        isa: Isa,
        /// The highest level of this machine.
        detected: Isa,
    },
    /// A kernel disagrees with the scalar oracle.
    #[error(
        "the {isa} kernel of {ty} gives {got:?} for row {row} where the oracle gives {expected:?}; use a lower level"
    )]
    SelfTest {
        /// The level that failed.
        isa: Isa,
        /// Name of the weight type.
        ty: &'static str,
        /// The row that differs.
        row: usize,
        /// The result of the oracle.
        expected: f32,
        /// The result of the kernel.
        got: f32,
    },
    /// A lookup table that does not hold the products it stands for.
    #[error(
        "entry {entry} of group {group} in the lookup table of token {token}, block {block} is {got}, not {expected}; \
         use a lower level"
    )]
    TableEntry {
        /// The row of activations.
        token: usize,
        /// The block of columns.
        block: usize,
        /// Group of columns in the block.
        group: usize,
        /// Entry of its table.
        entry: usize,
        /// The product of the entry's weights with the activations.
        expected: i32,
        /// The product that the table gives.
        got: i32,
    },
    /// A kernel that cannot multiply these weights with these activations.
    #[error(
        "there is no {kernel} kernel for {ty} weights and {mode:?} activations; use one that `bitnet doctor` lists"
    )]
    NoKernel {
        /// The kernel asked for.
        kernel: KernelKind,
        /// Name of the weight type.
        ty: &'static str,
        /// Precision of the activations.
        mode: ActMode,
    },
    /// The operating system gave no memory for packed weights.
    #[error("the operating system did not give {bytes} bytes for packed weights; use the layout of the file")]
    ArenaMemory {
        /// Number of bytes asked for.
        bytes: usize,
        /// The error of the system.
        source: std::io::Error,
    },
    /// Packed weights of another shape or another machine.
    #[error("packed weights of {expected} bytes on a cache line were expected, got {got} bytes; pack them anew")]
    PackedBytes {
        /// Bytes the shape needs.
        expected: usize,
        /// Bytes that were given.
        got: usize,
    },
    /// Ternary data that `ternary-core` refuses.
    #[error(transparent)]
    Ternary(#[from] ternary_core::Error),
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
