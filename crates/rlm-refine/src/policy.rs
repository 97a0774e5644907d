//! Policies: what a run learned, kept for later runs in an append-only store.

mod error;
mod lesson;
mod router;
mod scales;
mod store;

pub use error::PolicyError;
pub use lesson::{Finding, KeyLesson, LearnedBy, Part};
pub use router::RouterPolicy;
pub(crate) use scales::policy_subject;
pub use scales::{KnownSettings, MatrixSettings, ScaleGrid, TernaryScalePolicy};
pub use store::{Policy, PolicyStore};
