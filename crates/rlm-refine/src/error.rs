//! What can go wrong while a student is made.

use gguf_bitnet::TensorType;

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A defect of a recipe, an input or the environment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An override that cannot be read.
    #[error("the override `{text}` is not REGEX=TYPE: {reason}")]
    Override {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An override that changes nothing.
    #[error(
        "the override `{pattern}` matches no tensor that has a choice of types: the expression must fit a whole name, as \
         `inspect --tensors` shows them, and routers, norms and biases are always F32"
    )]
    UnusedOverride {
        /// Its expression.
        pattern: String,
    },
    /// An override that asks for what the layer filter forbids.
    #[error(
        "`{tensor}` must never be ternary (routers, norms, biases, embedding and head are not): narrow the override"
    )]
    NeverTernary {
        /// The protected tensor.
        tensor: String,
    },
    /// An override whose type does not divide the row.
    #[error("`{tensor}` has rows of {cols} weights, which do not fill the blocks of {ty}: override it with F16")]
    RowBlocks {
        /// The tensor.
        tensor: String,
        /// The type asked for.
        ty: TensorType,
        /// Weights per row.
        cols: usize,
    },
    /// A preset of this name does not exist.
    #[error("there is no preset `{name}`: use quality, balanced, 8g, phase1 or phase2")]
    UnknownPreset {
        /// What was given.
        name: String,
    },
    /// The model lacks tensors or has them in the wrong shape.
    #[error("{path} is not a complete model: {defects}")]
    Incomplete {
        /// The model.
        path: String,
        /// The first defects by tensor name, and how many there are.
        defects: String,
    },
    /// The memory limit is below what one row needs.
    #[error("{limit} bytes of memory are too few: `{tensor}` needs at least {needed} (raise --max-memory)")]
    Memory {
        /// The limit given.
        limit: u64,
        /// The smallest bound that works.
        needed: u64,
        /// The tensor with the largest rows.
        tensor: String,
    },
    /// The student would replace its own source.
    #[error("{path} belongs to the model that is read: choose another name for the output")]
    OutputIsSource {
        /// The output.
        path: String,
    },
    /// The file that was written is not the file that was planned.
    #[error("verification of the written file failed: {defect}")]
    NotAsPlanned {
        /// What differs.
        defect: String,
    },
    /// A shape description that cannot be used.
    #[error("{path} is not a usable shape: {reason}")]
    Shape {
        /// Where it was read.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Reading or writing a model file.
    #[error(transparent)]
    Gguf(#[from] gguf_bitnet::Error),
    /// Reading a model's configuration or tokenizer.
    #[error(transparent)]
    Runtime(#[from] moe_runtime::Error),
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: String,
        /// Its reason.
        source: std::io::Error,
    },
}
