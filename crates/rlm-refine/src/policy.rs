//! Policies: what a run learned, kept for later runs in an append-only store.

mod error;
mod store;

pub use error::PolicyError;
pub use store::{Policy, PolicyStore};
