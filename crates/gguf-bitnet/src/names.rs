//! Names: which tensor of the model each tensor of a file is.
//!
//! The [`TensorNameMapper`] reads a name, the [`Catalog`] lists the tensors of the model that a source holds, and a
//! [`TensorClass`] says what a tensor is for. [`validate`] compares a catalog with what its model should hold.

mod catalog;
mod class;
mod discovery;
mod error;
mod mapper;

pub use catalog::{Catalog, LogicalTensor, Matrix, Part};
pub use class::TensorClass;
pub use discovery::{ClassCount, DiscoveryReport, Expected, Misshaped, validate};
pub use error::NamesError;
pub use mapper::{SplitDims, TensorNameMapper, gguf_name, hf_name};
