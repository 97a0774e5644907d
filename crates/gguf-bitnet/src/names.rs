//! Names: they tell the tensor of the model that each tensor of a file holds.
//!
//! An architecture lists the names of its tensors as [`NameRow`]s; the tables lie in the crate that knows
//! architectures. The [`TensorNameMapper`] reads a name by them, the [`Catalog`] lists the tensors of the model that a
//! source holds, and a [`TensorClass`] is the role of a tensor. [`validate`] compares a catalog with the tensors that
//! the model should hold.

mod catalog;
mod class;
mod discovery;
mod error;
mod mapper;
mod row;
mod wrappers;

pub use catalog::{Catalog, LogicalTensor, Matrix, Part, RowOrder};
pub use class::TensorClass;
pub use discovery::{ClassCount, DiscoveryReport, Expected, Misshaped, validate};
pub use error::NamesError;
pub use mapper::{SplitDims, TensorNameMapper};
pub use row::{NameRow, Piece, Scope, Spelling};
