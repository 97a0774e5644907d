//! Failures of reading a recipe, and of applying it to a model.

use gguf_bitnet::TensorType;

/// A recipe that cannot be read, or that does not fit the model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named as in the messages")]
pub enum RecipeError {
    /// An override cannot be read.
    #[error("the override `{text}` is not REGEX=TYPE: {reason}")]
    Override { text: String, reason: String },
    /// An override changes nothing.
    #[error(
        "the override `{pattern}` matches no tensor that has a choice of types: the expression must fit a whole name, as \
         `inspect --tensors` shows them, and routers, norms and biases are always F32"
    )]
    UnusedOverride { pattern: String },
    /// An override asks for a ternary type that the layer filter forbids.
    #[error(
        "`{tensor}` must never be ternary (routers, norms, biases, embedding and head are not): narrow the override"
    )]
    NeverTernary { tensor: String },
    /// An override asks for a type whose blocks the tensor's rows do not fill.
    #[error("`{tensor}` has rows of {cols} weights, which do not fill the blocks of {ty}: override it with F16")]
    RowBlocks { tensor: String, ty: TensorType, cols: usize },
}
