//! The steps of the method, each of which can be left out to measure what it buys.

use std::fmt;
use std::str::FromStr;

use super::search::Effort;

/// A step that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Tokens weigh 1 over the squared length of the block's output; without it, all the same.
    TokenWeights,
    /// Tokens of a routed expert weigh the square of its gate.
    GateWeights,
    /// The Hessian is shrunk towards its diagonal.
    Shrinkage,
    /// The target is the output of the teacher on its own inputs; without it, on the student's.
    StudentInputs,
    /// Shrinkage, target mix and starting scales are chosen for each matrix by held-out tokens.
    ChosenSettings,
    /// A network that saw too few tokens is calibrated on others of its layer too.
    PooledTokens,
    /// Codes start from GPTQ; without it, from least squares of the target weights.
    Propagation,
    /// GPTQ takes the columns of largest moment first.
    ActivationOrder,
    /// Five scales per row are tried as starts.
    Starts,
    /// Codes are changed one by one while that lowers the error.
    Descent,
    /// The descent is kicked out of local optima.
    Kicks,
    /// The scales of a row are solved for together once its codes are known.
    JointScales,
    /// A row that does not beat least squares on held-out tokens becomes that of least squares.
    Acceptance,
}

impl Step {
    /// Every step with its name on the command line and in manifests.
    pub const ALL: [(&'static str, Step); 13] = [
        ("token-weights", Step::TokenWeights),
        ("gate-weights", Step::GateWeights),
        ("shrinkage", Step::Shrinkage),
        ("student-inputs", Step::StudentInputs),
        ("chosen-settings", Step::ChosenSettings),
        ("pooled-tokens", Step::PooledTokens),
        ("propagation", Step::Propagation),
        ("activation-order", Step::ActivationOrder),
        ("starts", Step::Starts),
        ("descent", Step::Descent),
        ("kicks", Step::Kicks),
        ("joint-scales", Step::JointScales),
        ("acceptance", Step::Acceptance),
    ];

    /// The name on the command line and in manifests.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, step)| *step == self).expect("ALL lists every step").0
    }
}

/// A name that no step has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownStep(String);

impl fmt::Display for UnknownStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Step::ALL.map(|(name, _)| name).join(", ");
        write!(f, "there is no step `{}`; the steps are {names}", self.0)
    }
}

impl std::error::Error for UnknownStep {}

impl FromStr for Step {
    type Err = UnknownStep;

    fn from_str(name: &str) -> Result<Self, UnknownStep> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, step)| *step).ok_or_else(|| UnknownStep(name.to_owned()))
    }
}

/// The steps that are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    left_out: Vec<Step>,
}

impl Steps {
    /// All steps but these.
    #[must_use]
    pub fn without(steps: &[Step]) -> Self {
        let mut left_out = steps.to_vec();
        left_out.sort_unstable();
        left_out.dedup();
        Self { left_out }
    }

    /// Whether a step is taken.
    #[must_use]
    pub fn has(&self, step: Step) -> bool {
        !self.left_out.contains(&step)
    }

    /// The names of the steps that are left out, ascending.
    pub(crate) fn left_out(&self) -> Vec<&'static str> {
        self.left_out.iter().map(|step| step.name()).collect()
    }
}

/// The settings of the search for rows.
#[derive(Clone, Debug)]
pub(super) struct Search {
    pub(super) steps: Steps,
    pub(super) effort: Effort,
    pub(super) seed: u64,
}
