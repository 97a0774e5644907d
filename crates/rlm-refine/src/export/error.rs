//! The reasons for which adapters cannot be folded into a model.

use gguf_bitnet::TensorType;

/// A model that adapters cannot be folded into.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named as in the messages")]
pub enum ExportError {
    /// A model that lies in a checkpoint directory, whose tensors are not in one file.
    #[error("{path} is no GGUF file; quantise it first, or fold the adapter with the tools of the checkpoint")]
    NotGguf { path: String },
    /// A matrix whose type holds no sum of weights and additions.
    #[error(
        "`{tensor}` is {ty}, and a sum of trits and additions has no trits: give the adapter at run time with --adapter, or fold it into a model whose matrices are F32, F16, BF16, Q8_0 or Q6_K"
    )]
    Type { tensor: String, ty: TensorType },
    /// A matrix of the model that the file stores as a part of another tensor.
    #[error(
        "the file has no tensor `{tensor}` by itself, so nothing can be added to it there: give the adapter at run time with --adapter"
    )]
    NotInFile { tensor: String },
    /// A sidecar, which stands beside all matrices.
    #[error(
        "`{tensor}` is a sidecar of the residual stream, and no matrix of the model can hold it: give the adapter at run time with --adapter"
    )]
    Sidecar { tensor: String },
    /// A call without adapters.
    #[error("there is no adapter to fold; name one with --adapter")]
    NoAdapter,
}
