//! Failures between a path and weights in memory.

/// A model whose files or weights cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message names its fields")]
pub enum LoadError {
    /// A model directory without its configuration.
    #[error("{source}; a checkpoint directory needs its config.json")]
    ConfigFile { source: gguf_bitnet::Error },
    /// A tensor the model needs is not in its file.
    #[error(
        "the model lacks the tensor `{tensor}`; the file is incomplete or belongs to another model: fetch it again"
    )]
    MissingTensor { tensor: String },
    /// A model that was asked for guesses of a block that it does not have.
    #[error(
        "the model has no MTP block (multi-token prediction) that is read here; take guesses from the text itself, or keep the block when the model is quantised"
    )]
    NoMtp,
    /// A tensor has other dimensions than the configuration says.
    #[error(
        "`{tensor}` has the shape {got:?}, but the configuration asks for {expected:?}; the file and its configuration do not belong together"
    )]
    Shape { tensor: String, expected: Vec<usize>, got: Vec<usize> },
    /// A tensor with damaged weights, or of a form that no kernel reads.
    #[error("tensor `{tensor}` cannot be used: {source}; run `bitnet verify` on the model")]
    Weight { tensor: String, source: tl_kernels::Error },
    /// The system gave no memory.
    #[error("{bytes} bytes for {what} cannot be allocated; close other programs or choose a smaller model or context")]
    Memory { what: String, bytes: usize },
    /// The model needs more memory than the limit allows.
    #[error(
        "the model needs {need} bytes ({detail}), but only {allowed} are allowed; choose a shorter context or a smaller model"
    )]
    MemoryLimit { need: u64, allowed: u64, detail: String },
}
