//! Everything that can go wrong in this crate: one enum per room, nested here.

use crate::encoder::EncoderError;
use crate::store::IndexError;

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A defect of a file, a text, an argument or the environment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the nested enums and their sentences say what they are")]
pub enum Error {
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    File(#[from] gguf_bitnet::Error),
    #[error(transparent)]
    Kernel(#[from] tl_kernels::Error),
    #[cfg(feature = "std")]
    #[error(transparent)]
    Model(#[from] moe_runtime::Error),
}
