//! The measurements of one model that gates take their figures from.

use std::borrow::Borrow;

use serde::Serialize;

use super::citations::{CitationFigures, citations};
use super::error::GateError;
use super::record::PromptRecord;
use super::refusals::{RefusalFigures, refusals};
use super::routing::agreement;
use crate::stats::{BootstrapConfig, Figure};
use crate::suite::Label;

/// How figures are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct GateConfig {
    pub bootstrap: BootstrapConfig,
    /// Prompts of each gated label below which there is no verdict.
    pub min_prompts_per_label: u64,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self { bootstrap: BootstrapConfig { resamples: 2_000, seed: 0 }, min_prompts_per_label: 20 }
    }
}

/// Everything that was measured of one model over all prompts.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Measured {
    pub citations: CitationFigures,
    pub refusals: RefusalFigures,
    /// How often its routers choose the teacher's experts; absent where no record has routing.
    pub routing: Option<Figure>,
}

impl Measured {
    /// Takes all figures of these records.
    ///
    /// # Errors
    /// [`GateError::OneSided`] without resolved or without indeterminate prompts, [`GateError::TooFewPrompts`] below the
    /// configured number of either.
    pub fn of<'a, R: Borrow<PromptRecord<'a>>>(records: &[R], config: &GateConfig) -> Result<Self, GateError> {
        let records: Vec<&PromptRecord<'a>> = records.iter().map(Borrow::borrow).collect();
        check_balance(records.iter().map(|record| record.label), config.min_prompts_per_label)?;
        let routing: Vec<_> = records.iter().filter_map(|record| record.routing.as_ref()).collect();
        Ok(Self {
            citations: citations(&records, config.bootstrap),
            refusals: refusals(&records, config.bootstrap),
            routing: agreement(routing.iter().map(|figures| figures.agreement), config.bootstrap),
        })
    }
}

/// Refuses prompts with these labels when no verdict can rest on them.
pub(crate) fn check_balance(labels: impl Iterator<Item = Option<Label>>, need: u64) -> Result<(), GateError> {
    let labels: Vec<Option<Label>> = labels.collect();
    let count = |label| labels.iter().filter(|one| **one == Some(label)).count() as u64;
    let (resolved, indeterminate) = (count(Label::Resolved), count(Label::Indeterminate));
    if resolved == 0 || indeterminate == 0 {
        return Err(GateError::OneSided { resolved, indeterminate });
    }
    for (label, have) in [(Label::Resolved, resolved), (Label::Indeterminate, indeterminate)] {
        if have < need {
            return Err(GateError::TooFewPrompts { label, have, need });
        }
    }
    Ok(())
}
