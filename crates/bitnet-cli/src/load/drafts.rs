//! Drafts for the answers of a model, one source for each answer.

use std::sync::Arc;

use mla_attention::CacheType;
use moe_runtime::{CraftsmanModel, Drafter, ModelFiles, MtpDrafter, NgramDrafter, Result, Speculation, StepCosts};

/// The facts of a model that drafts need.
#[derive(Clone, Debug)]
pub(crate) struct Drafts {
    costs: StepCosts,
    vocab: usize,
    source: Source,
}

/// The source of the guesses.
#[derive(Clone, Debug)]
enum Source {
    /// The tokens that followed the last ones where they stood before.
    Ngram,
    /// The MTP block of the model, in sequences of `n_ctx` tokens.
    Mtp { model: Arc<CraftsmanModel>, n_ctx: usize, ty: CacheType, cost: f64 },
}

impl Drafts {
    /// Drafts from the sequence itself.
    pub(crate) fn ngram(files: &ModelFiles) -> Drafts {
        Drafts { costs: files.step_costs(), vocab: files.config.vocab, source: Source::Ngram }
    }

    /// Drafts by the MTP block of `model`, whose sequences have at most `n_ctx` tokens in caches of type `ty`.
    pub(crate) fn mtp(files: &ModelFiles, model: Arc<CraftsmanModel>, n_ctx: usize, ty: CacheType) -> Drafts {
        let source = Source::Mtp { model, n_ctx, ty, cost: files.mtp_cost() };
        Drafts { costs: files.step_costs(), vocab: files.config.vocab, source }
    }

    /// The drafts of one sequence, before its first token.
    ///
    /// # Errors
    /// A model without the block.
    pub(crate) fn speculation(&self) -> Result<Speculation> {
        let drafter: Box<dyn Drafter> = match &self.source {
            Source::Ngram => Box::new(NgramDrafter::new()),
            Source::Mtp { model, n_ctx, ty, cost } => Box::new(MtpDrafter::new(model.clone(), *n_ctx, *ty, *cost)?),
        };
        Ok(Speculation::new(drafter, self.costs.clone(), self.vocab))
    }
}
