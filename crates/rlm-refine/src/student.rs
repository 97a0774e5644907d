//! The file that a student becomes: its tensors with their types, its metadata, its exact size, and the units of work it
//! is written in.

mod metadata;
mod plan;
mod units;

pub(crate) use metadata::Provenance;
pub use plan::{PlannedTensor, StudentPlan};
pub(crate) use units::{Unit, Units};
