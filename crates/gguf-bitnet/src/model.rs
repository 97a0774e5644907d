//! Whole models of either container format: finding and opening them, their identity, and the check of all weights.

mod defect;
mod error;
pub(crate) mod identity;
mod open;
mod rewrite;
mod scan;
mod verify;

pub use defect::{Defect, DefectKind};
pub use error::ModelError;
pub use identity::{identity, identity_of, local_state};
pub use open::{OpenModel, open_source, resolve_model};
pub use rewrite::rewrite_metadata;
pub use verify::{TypeCount, VerifyReport, verify, verify_source};
