//! The fit of a router, as a run judged it.

use serde::{Deserialize, Serialize};

/// A run's knowledge about the router of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouterPolicy {
    /// The name of the [`RouterMethod`](crate::train::RouterMethod) by which it was fitted.
    pub method: String,
    /// The share of held-out tokens for which the old router chose the teacher's set of experts.
    pub agreement_before: f64,
    /// The same for the fitted one.
    pub agreement_after: f64,
    /// Whether the fitted router replaced the old one.
    pub is_kept: bool,
}
