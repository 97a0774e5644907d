//! The ways in which routers are fitted, and the outcomes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a router is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouterMethod {
    /// Least squares to the teacher's logits; held-out windows choose how far the router may move.
    Ridge,
    /// From the ridge on, the divergence of the scores from the teacher's.
    Kl,
    /// From the ridge on, a margin between the teacher's experts and the others that score highest.
    Hinge,
    /// From the ridge on, the loss of [`ContrastiveTrainer`](super::ContrastiveTrainer).
    Contrastive,
}

impl RouterMethod {
    /// The methods in the order of the documentation.
    pub const ALL: [RouterMethod; 4] =
        [RouterMethod::Ridge, RouterMethod::Kl, RouterMethod::Hinge, RouterMethod::Contrastive];

    /// The name on command lines and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            RouterMethod::Ridge => "ridge",
            RouterMethod::Kl => "kl",
            RouterMethod::Hinge => "hinge",
            RouterMethod::Contrastive => "contrastive",
        }
    }
}

impl fmt::Display for RouterMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no method has.
#[derive(Debug, thiserror::Error)]
#[error("there is no method `{0}`: name ridge, kl, hinge or contrastive")]
pub struct UnknownRouterMethod(String);

impl FromStr for RouterMethod {
    type Err = UnknownRouterMethod;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|method| method.name() == name).ok_or_else(|| UnknownRouterMethod(name.to_owned()))
    }
}

/// The labels that routers are fitted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterLabels {
    /// The teacher's choice for each token.
    Teacher,
    /// The teacher's choices, each given to another token: the control, from which nothing can be learned.
    Shuffled {
        /// Seed of their order.
        seed: u64,
    },
}

/// The outcome for one router.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RepairedRouter {
    /// Position in the model.
    pub layer: usize,
    /// The share of held-out tokens for which the router chose the teacher's set of experts.
    pub agreement_before: f64,
    /// The same for the fitted router.
    pub agreement_after: f64,
    /// Whether the fitted router replaces the old one.
    pub is_kept: bool,
}

/// The repair of all routers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouterRepair {
    /// How they were fitted.
    pub method: RouterMethod,
    /// Mean divergence on the held-out windows before and behind it.
    pub held_out_kl: [f64; 2],
    /// One entry per layer with experts.
    pub routers: Vec<RepairedRouter>,
}
