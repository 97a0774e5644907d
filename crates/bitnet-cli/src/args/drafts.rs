//! `--draft`: guesses at the next tokens, which one step verifies together.

use clap::ValueEnum;
use moe_runtime::ModelFiles;

use crate::load::Drafts;

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
    /// No guesses, one token per step
    Off,
}

impl DraftArgs {
    /// The source of drafts for the model of `files`, where there is to be one.
    pub(crate) fn source(self, files: &ModelFiles) -> Option<Drafts> {
        match self.draft {
            Draft::Ngram => Some(Drafts::of_model(files)),
            Draft::Off => None,
        }
    }
}
