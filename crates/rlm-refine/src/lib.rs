//! Teacher to student: recipes, post-training quantisation, synthetic models.
//!
//! [`recipe`] says which type a tensor gets, [`student`] what file that makes, [`quantize`] makes it from a checkpoint
//! and [`synth`] from nothing.
//!
//! **Invariant:** routers, norms, biases, the embedding and the head are never ternary.

pub mod encode;
pub mod quantize;
pub mod recipe;
pub mod student;
pub mod synth;
pub mod units;

mod error;

pub use error::{Error, Result};
pub use quantize::{QuantizeOptions, QuantizeReport, Quantizer, Stage};
pub use recipe::{Assignment, Override, Preset, Reason, Recipe, Ternary};
pub use student::{PlannedTensor, Provenance, StudentPlan};
