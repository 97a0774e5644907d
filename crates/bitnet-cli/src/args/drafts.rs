//! `--draft`: guesses at the next tokens, which one step verifies together.

use std::sync::Arc;

use anyhow::Result;
use clap::ValueEnum;
use moe_runtime::{CraftsmanModel, ModelFiles};

use crate::load::{Drafts, Engine};

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct DraftArgs {
    /// Where guesses at the next tokens come from; they change the speed of an answer and none of its tokens
    #[arg(long, value_enum, default_value = "ngram", value_name = "SOURCE")]
    draft: Draft,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Draft {
    /// The prompt and the answer so far: what followed the last tokens where they stood before
    Ngram,
    /// The model's own block of multi-token prediction, where its files have one
    Mtp,
    /// No guesses, one token per step
    Off,
}

impl DraftArgs {
    /// The model of `files` with all that the drafts need.
    ///
    /// # Errors
    /// A model without the block that was asked for.
    pub(crate) fn complete(self, files: ModelFiles) -> Result<ModelFiles> {
        Ok(if self.draft == Draft::Mtp { files.with_mtp()? } else { files })
    }

    /// The source of drafts for `model`, which `engine` loaded from `files`, and sequences of `n_ctx` tokens, where there is to
    /// be one.
    pub(crate) fn source(
        self,
        files: &ModelFiles,
        (engine, model): (&Engine, &Arc<CraftsmanModel>),
        n_ctx: usize,
    ) -> Option<Drafts> {
        match self.draft {
            Draft::Ngram => Some(Drafts::ngram(files)),
            Draft::Mtp => Some(Drafts::mtp(files, model.clone(), n_ctx, engine.kv)),
            Draft::Off => None,
        }
    }
}
