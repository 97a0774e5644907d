//! The view of a model file that both container formats share: named tensors and their bytes.

mod error;
mod scales;
mod tensor_source;

pub(crate) use tensor_source::within;

pub use error::SourceError;
pub use scales::Scales;
pub use tensor_source::{TensorInfo, TensorSource};
