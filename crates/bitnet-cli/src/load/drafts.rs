//! Drafts for the answers of a model, one source for each answer.

use moe_runtime::{ModelFiles, NgramDrafter, Speculation, StepCosts};

/// The facts of a model that drafts need.
#[derive(Clone, Debug)]
pub(crate) struct Drafts {
    costs: StepCosts,
    vocab: usize,
}

impl Drafts {
    pub(crate) fn of_model(files: &ModelFiles) -> Drafts {
        Drafts { costs: files.step_costs(), vocab: files.config.vocab }
    }

    /// Drafts from the sequence itself, before its first token.
    pub(crate) fn ngram(&self) -> Speculation {
        Speculation::new(Box::new(NgramDrafter::new()), self.costs.clone(), self.vocab)
    }
}
