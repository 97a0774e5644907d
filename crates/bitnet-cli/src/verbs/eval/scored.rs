//! A model of `bitnet eval fidelity` with the text in its tokens.

use std::sync::Arc;

use anyhow::{Error, Result};
use behavior_eval::fidelity::FidelityError;
use moe_runtime::ModelFiles;
use moe_runtime::adapters::{AdapterSlot, OpenAdapters};
use rlm_refine::measure::TextScorer;
use tl_kernels::Pool;

use crate::args::{self, Act, AdapterArgs, AllowZero, FfnAct, Kv};
use crate::load;
use crate::output;

/// Names the damaged tensor behind scores that are NaN or infinite.
pub(super) fn explain(error: behavior_eval::Error, models: &[&ModelFiles]) -> Error {
    match error {
        behavior_eval::Error::Fidelity(FidelityError::NotFinite { .. }) => {
            models.iter().find_map(|files| load::first_defect(files))
        }
        _ => None,
    }
    .unwrap_or_else(|| error.into())
}

/// How a model is run for scores.
#[derive(Clone, Copy)]
pub(super) struct Scoring<'a> {
    pub(super) act: Option<Act>,
    pub(super) ffn_act: FfnAct,
    pub(super) kv: Kv,
    pub(super) zero: AllowZero,
    /// Tokens of a window.
    pub(super) n_ctx: usize,
    pub(super) adapters: &'a AdapterArgs,
}

/// A model that scores windows, and the text in its tokens.
pub(super) struct Scored {
    pub(super) files: ModelFiles,
    pub(super) scorer: TextScorer,
    pub(super) tokens: Vec<u32>,
    /// Tokens that each window begins with.
    pub(super) prefix: Vec<u32>,
    adapters: Option<OpenAdapters>,
}

impl Scored {
    pub(super) fn open(spec: &str, scoring: &Scoring<'_>, text: &str, pool: Arc<Pool>) -> Result<Self> {
        let mut files = load::open(spec)?;
        scoring.ffn_act.apply(&mut files);
        let tokenizer = files.tokenizer()?;
        if tokenizer.is_byte_fallback() {
            output::note(format_args!("warning: {spec} has no vocabulary; its text is cut into bytes"));
        }
        let guesses = files.guesses(Some(&tokenizer));
        load::note_guesses(guesses.iter().filter(|guess| !guess.is_about_chat()));
        let adapters = scoring.adapters.open()?;
        let slot = AdapterSlot::new(args::sum_of_adapters(adapters.as_ref(), &files)?);
        let options = load::measured(&files, scoring.act, scoring.zero.allow_zero, pool);
        let model = load::load(&files, &options)?;
        let scorer = TextScorer::new(Arc::new(model), scoring.n_ctx, scoring.kv.into())?.with_adapters(slot);
        // A control token in a measured text is encoded as ordinary characters.
        let tokens = tokenizer.encode(text, false)?;
        Ok(Self { files, scorer, tokens, prefix: tokenizer.raw_prefix(), adapters })
    }

    /// The identity of the model with its adapters. Reads the whole model.
    pub(super) fn identity(&self) -> Result<String> {
        args::adapted_identity(self.adapters.as_ref(), &self.files)
    }
}
