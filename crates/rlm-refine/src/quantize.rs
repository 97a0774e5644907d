//! Post-training quantisation: a checkpoint goes in, a student comes out, row by row.
//!
//! ```text
//! source (mmap) --rows--> F32 --encode--> bytes --append--> OUT.partial/data --verify--> rename --> OUT
//! ```
//!
//! **Invariant:** the student's bytes follow from the source and the settings in the manifest alone, so a job that was
//! killed at any moment resumes and ends byte-identical, with at most one unit of work redone.
//!
//! **Invariant:** resident memory stays below [`Quantizer::memory_bytes`], mapped pages included.

mod name;
mod quantizer;
mod report;
mod rounds;
mod share;
mod stage;

pub use quantizer::{Method, QuantizeOptions, Quantizer};
pub use report::{QuantizeReport, TypeReport};
pub use rounds::RoundsReport;
pub use stage::{OnProgress, Stage};
