//! How answers cite.
//!
//! - precision: valid citations of all citations on resolved and indeterminate prompts; repeated ones count
//! - recall: relevant chunks that were cited, of all relevant chunks of all resolved prompts, answered or not
//! - support precision: citations of relevant chunks of all citations on resolved and indeterminate prompts
//!
//! Contested prompts are reported and never gated.

use serde::Serialize;

use super::record::PromptRecord;
use crate::stats::{Counts, Figure};
use crate::suite::Label;

/// Figures of the citations of one model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CitationFigures {
    /// Valid citations of all citations of resolved and indeterminate prompts.
    pub precision: Figure,
    /// The same, averaged over the answers that cite.
    pub precision_macro: Figure,
    /// Relevant chunks cited of all relevant chunks of resolved prompts; uncited answers count as zero.
    pub recall: Figure,
    /// The same, averaged over the resolved prompts.
    pub recall_macro: Figure,
    /// Citations that name one of the chunks the suite calls relevant; absent where it names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub support_precision: Option<Figure>,
    /// Contested prompts; not gated, absent without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contested: Option<ContestedCitations>,
}

/// Citations of contested prompts; reported, not gated.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ContestedCitations {
    /// Valid citations, judged by clause, of all citations.
    pub precision: Figure,
    /// Prompts whose valid citations reach at least two of the answers that the evidence holds.
    pub disclosed: Figure,
    /// Prompts whose valid citations reach one answer only.
    pub one_sided: Figure,
}

/// The figures over all records.
pub(super) fn citations(records: &[&PromptRecord<'_>]) -> CitationFigures {
    let labelled =
        |label| records.iter().copied().filter(move |record| record.label == Some(label)).collect::<Vec<_>>();
    let (resolved, contested) = (labelled(Label::Resolved), labelled(Label::Contested));
    let gated: Vec<&PromptRecord<'_>> = records.iter().copied().filter(|record| record.is_gated()).collect();
    let quotient = |of: &[&PromptRecord<'_>], count: fn(&PromptRecord<'_>) -> Counts| {
        Figure::quotient(&of.iter().map(|record| count(record)).collect::<Vec<_>>())
    };
    let mean = |of: &[&PromptRecord<'_>], count: fn(&PromptRecord<'_>) -> Counts| {
        let counts = of.iter().map(|record| count(record)).filter(|counts| counts.denominator > 0);
        Figure::mean(&counts.map(Counts::ratio).collect::<Vec<_>>())
    };
    let reaching = |wanted: fn(u64) -> bool| {
        let count = contested.iter().filter(|record| record.sides.is_some_and(wanted)).count();
        Figure::share(count as u64, contested.len() as u64)
    };
    let is_attributed = gated.iter().all(|record| record.prompt.relevant.is_some());
    CitationFigures {
        precision: quotient(&gated, valid),
        precision_macro: mean(&gated, valid),
        recall: quotient(&resolved, recalled),
        recall_macro: mean(&resolved, recalled),
        support_precision: is_attributed.then(|| quotient(&gated, supported)),
        contested: (!contested.is_empty()).then(|| ContestedCitations {
            precision: quotient(&contested, valid),
            disclosed: reaching(|sides| sides > 1),
            one_sided: reaching(|sides| sides == 1),
        }),
    }
}

fn valid(record: &PromptRecord<'_>) -> Counts {
    Counts { numerator: record.n_valid(), denominator: record.citations.len() as u64 }
}

fn recalled(record: &PromptRecord<'_>) -> Counts {
    Counts { numerator: record.n_relevant_cited(), denominator: record.relevant.len() as u64 }
}

fn supported(record: &PromptRecord<'_>) -> Counts {
    let relevant = record.citations.iter().filter(|citation| citation.relevant).count();
    Counts { numerator: relevant as u64, denominator: record.citations.len() as u64 }
}
