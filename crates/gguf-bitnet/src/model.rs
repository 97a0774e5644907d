//! Whole models of either container format: finding and opening them, their identity, and the check of all weights.

mod convert;
mod defect;
mod error;
mod folder;
mod hub;
pub(crate) mod identity;
mod locate;
mod open;
mod recognition;
mod replace;
mod rewrite;
mod role;
mod scan;
mod verify;
mod weightless;
mod zeros;

pub use convert::{Converted, convert};
pub use defect::{Defect, DefectKind};
pub use error::ModelError;
pub use hub::hub_folder;
pub use identity::{identity, identity_of, local_state, sample_of};
pub use locate::resolve_model;
pub use open::{OpenModel, open_source};
pub use rewrite::rewrite_metadata;
pub use role::Role;
pub use verify::{TypeCount, VERIFY_JOB, VerifyReport, verify, verify_parts, verify_shard, verify_source};
pub use weightless::{Weightless, ZeroTensor};
