//! The view of a model file that both container formats share: named tensors and their bytes.

mod error;
mod file_range;
mod tensor_source;

pub(crate) use file_range::FileRange;

pub use error::SourceError;
pub use tensor_source::{TensorInfo, TensorSource};
