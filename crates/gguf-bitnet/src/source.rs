//! A file or a set of files that holds named tensors, whatever its container format.

mod error;
mod tensor_source;

pub(crate) use tensor_source::within;

pub use error::SourceError;
pub use tensor_source::{TensorInfo, TensorSource};
