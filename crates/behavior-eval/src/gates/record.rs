//! A prompt with the response that the gates judge, and what the gates ask of a suite.

use serde::Serialize;

use crate::labels::PromptLabel;
use crate::stats::BootstrapConfig;
use crate::suite::{Label, Prompt};
use crate::{Error, Result};

/// A response and what it is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// The prompt.
    pub prompt: &'a Prompt,
    /// What its evidence allows; a prompt without a label is judged and listed, but not gated.
    pub label: Option<Label>,
    /// Ids of the chunks that an answer should cite.
    pub relevant: &'a [String],
    /// Whether `relevant` is the suite's own word.
    pub is_attributed: bool,
    /// What the model said.
    pub response: &'a str,
}

impl<'a> Answered<'a> {
    /// Judges the response by the label and the attribution that the suite itself carries.
    #[must_use]
    pub fn new(prompt: &'a Prompt, response: &'a str) -> Self {
        let relevant = prompt.relevant.as_deref();
        let is_attributed = relevant.is_some();
        Self { prompt, label: prompt.label, relevant: relevant.unwrap_or_default(), is_attributed, response }
    }

    /// Fills in from the evidence what the suite does not say.
    #[must_use]
    pub fn with_evidence(self, label: &'a PromptLabel) -> Self {
        let relevant = if self.is_attributed { self.relevant } else { &label.relevant };
        Self { label: self.label.or(label.label), relevant, ..self }
    }
}

/// What the citation gate and the refusal gate ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct GateConfig {
    /// How intervals are drawn.
    pub bootstrap: BootstrapConfig,
    /// Prompts of each gated label below which there is no verdict.
    pub min_prompts_per_label: u64,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self { bootstrap: BootstrapConfig { resamples: 2_000, seed: 0 }, min_prompts_per_label: 20 }
    }
}

/// Refuses prompts with these labels when no verdict can rest on them.
pub(crate) fn check_balance(labels: impl Iterator<Item = Option<Label>>, config: &GateConfig) -> Result<()> {
    let labels: Vec<Option<Label>> = labels.collect();
    let count = |label| labels.iter().filter(|one| **one == Some(label)).count() as u64;
    let (resolved, indeterminate) = (count(Label::Resolved), count(Label::Indeterminate));
    if resolved == 0 || indeterminate == 0 {
        return Err(Error::OneSided { resolved, indeterminate });
    }
    let need = config.min_prompts_per_label;
    for (label, have) in [(Label::Resolved, resolved), (Label::Indeterminate, indeterminate)] {
        if have < need {
            return Err(Error::TooFewPrompts { label, have, need });
        }
    }
    Ok(())
}
