//! Failures of the forward pass.

/// A batch that cannot be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message names its fields")]
pub enum ForwardError {
    /// A routing that was forced from outside does not fit the layer.
    #[error("a forced routing names {what} {got}, but the layer has {limit}; correct the override")]
    Routing { what: &'static str, got: usize, limit: usize },
    /// Attention could not be built or run.
    #[error(transparent)]
    Attention(mla_attention::Error),
    /// A kernel refused its input.
    #[error(transparent)]
    Kernel(#[from] tl_kernels::Error),
}
