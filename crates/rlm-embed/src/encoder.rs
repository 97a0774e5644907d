//! From a text to a vector.
//!
//! ```text
//! base.rs            the trait that the store, the recursion and the benchmark use
//! bert.rs            BertEncoder: the forward pass
//!   config.rs        the facts of its config.json      weights.rs   its tensors
//!   tokens.rs        its tokens: wordpiece.rs through the crate `tokenizers`, pieces.rs without it
//!   projection.rs    the matrices that read one input, and its rounding to INT8
//! hash.rs            hashed words, the baseline        language_model.rs   mean hidden states of a decoder
//! vectors.rs         arithmetic on unit vectors
//! ```

mod base;
mod bert;
mod config;
mod error;
mod hash;
#[cfg(feature = "std")]
mod language_model;
mod pieces;
mod projection;
mod tokens;
mod vectors;
mod weights;
#[cfg(feature = "std")]
mod wordpiece;

pub use base::BaseEmbedder;
pub use bert::{BertEncoder, BertParts};
pub use error::EncoderError;
pub use hash::HashEmbedder;
#[cfg(feature = "std")]
pub use language_model::LanguageModelEmbedder;
pub use vectors::{cosine, normalise};
pub use weights::Precision;
