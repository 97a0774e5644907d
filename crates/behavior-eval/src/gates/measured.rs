//! The measurements of one model that gates take their figures from.

use std::borrow::Borrow;

use super::citations::{CitationFigures, citations};
use super::error::GateError;
use super::record::PromptRecord;
use super::refusals::{RefusalFigures, refusals};
use super::routing::agreement;
use crate::stats::Figure;
use crate::suite::Label;

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
    /// [`GateError::OneSided`] without resolved or without indeterminate prompts, [`GateError::TooFewPrompts`] for fewer
    /// than `min_samples` of either.
    pub fn of<'a, R: Borrow<PromptRecord<'a>>>(records: &[R], min_samples: u64) -> Result<Self, GateError> {
        let records: Vec<&PromptRecord<'a>> = records.iter().map(Borrow::borrow).collect();
        check_balance(records.iter().map(|record| record.label), min_samples)?;
        let routing: Vec<_> = records.iter().filter_map(|record| record.routing.as_ref()).collect();
        Ok(Self {
            citations: citations(&records),
            refusals: refusals(&records),
            routing: agreement(routing.iter().map(|figures| figures.agreement)),
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
