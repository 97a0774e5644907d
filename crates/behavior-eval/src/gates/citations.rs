//! The citation gate: whether answers cite what supports them, and all of it.
//!
//! A citation is valid when the prompt has the chunk and the cited sentence, its citations left out, stands in the chunk
//! word by word or shares more than 0.6 of all words with it (Jaccard index of the two sets of words). Nothing may be
//! cited on an indeterminate prompt. Every citation counts, repeated ones too.
//!
//! - precision: valid citations of all citations on resolved and indeterminate prompts
//! - recall: relevant chunks that were cited, of all relevant chunks of all resolved prompts, answered or not
//! - support precision: citations of relevant chunks of all citations on resolved and indeterminate prompts
//!
//! Contested prompts are reported and never gated. There a citation is valid when the clause before its group states the
//! answer of the cited chunk.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Serialize, Serializer};

use super::record::{Answered, GateConfig, check_balance};
use crate::Result;
use crate::labels::Evidence;
use crate::stats::{Counts, Figure};
use crate::suite::Label;
use crate::text::{Citation, contains_run, overlap, sentences, words};

/// Bytes of a response; written as `[start, end]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// The byte behind the last.
    pub end: usize,
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.start, self.end].serialize(serializer)
    }
}

/// What became of a citation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CitationVerdict {
    /// The chunk supports the sentence or, on a contested prompt, the clause.
    Valid,
    /// The prompt has no such chunk.
    NoSuchChunk,
    /// The chunk says something else.
    NotSupported,
    /// The evidence allows no answer, so there is nothing to cite.
    NothingToCite,
}

/// One citation with its verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JudgedCitation {
    /// The id between the brackets.
    pub chunk_id: String,
    /// Bytes of the id in the response.
    pub span: Span,
    /// Whether it is valid.
    pub valid: bool,
    /// Why, or why not.
    pub verdict: CitationVerdict,
    /// Whether it is one of the chunks that an answer should cite.
    pub relevant: bool,
}

/// The citations of one response.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PromptCitations {
    /// The prompt.
    pub prompt_id: String,
    /// What its evidence allows.
    pub label: Option<Label>,
    /// Valid ones of its citations.
    pub n_valid: u64,
    /// Chunks that an answer should cite.
    pub n_relevant: u64,
    /// How many of those were cited.
    pub n_relevant_cited: u64,
    /// Different answers of the evidence that a valid citation reaches; more than one discloses a conflict. Only for
    /// contested prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sides: Option<u64>,
    /// All citations, in order.
    pub citations: Vec<JudgedCitation>,
}

/// What contested prompts show; reported, not gated.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ContestedCitations {
    /// Valid citations, judged by clause, of all citations.
    pub precision: Figure,
    /// Prompts whose valid citations reach at least two of the answers that the evidence holds.
    pub disclosed: Figure,
    /// Prompts whose valid citations reach one answer only.
    pub one_sided: Figure,
}

/// Figures of the citation gate.
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

/// What the citation gate found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CitationReport {
    /// Over all prompts.
    #[serde(flatten)]
    pub figures: CitationFigures,
    /// Every prompt, in the order of the suite.
    pub prompts: Vec<PromptCitations>,
}

/// The citations of one response.
#[must_use]
pub fn judge_citations(answered: &Answered<'_>) -> PromptCitations {
    let Answered { prompt, label, relevant, response, .. } = *answered;
    // Only contested prompts are judged by what each chunk answers.
    let evidence = (label == Some(Label::Contested)).then(|| Evidence::of(prompt));
    let mut citations = Vec::new();
    let (mut cited, mut sides) = (BTreeSet::new(), BTreeSet::new());
    for sentence in sentences(response, prompt) {
        let said = words(&sentence.text);
        for citation in sentence.citations {
            let verdict = match (&evidence, prompt.chunk(&citation.chunk_id)) {
                (_, None) => CitationVerdict::NoSuchChunk,
                (None, Some(_)) if label == Some(Label::Indeterminate) => CitationVerdict::NothingToCite,
                (None, Some(chunk)) => supported(sentence_stands_in(&said, &chunk.text)),
                (Some(evidence), Some(_)) => {
                    let side = side_of(evidence, &citation, response);
                    sides.extend(side);
                    supported(side.is_some())
                }
            };
            let is_relevant = relevant.contains(&citation.chunk_id);
            if is_relevant {
                cited.insert(citation.chunk_id.clone());
            }
            citations.push(JudgedCitation {
                chunk_id: citation.chunk_id,
                span: citation.span.into(),
                valid: verdict == CitationVerdict::Valid,
                verdict,
                relevant: is_relevant,
            });
        }
    }
    PromptCitations {
        prompt_id: prompt.id.clone(),
        label,
        n_valid: citations.iter().filter(|citation| citation.valid).count() as u64,
        n_relevant: relevant.len() as u64,
        n_relevant_cited: cited.len() as u64,
        sides: evidence.map(|_| sides.len() as u64),
        citations,
    }
}

fn supported(is_supported: bool) -> CitationVerdict {
    if is_supported { CitationVerdict::Valid } else { CitationVerdict::NotSupported }
}

/// Whether the words of a sentence stand in a chunk, or nearly so.
fn sentence_stands_in(said: &[String], chunk: &str) -> bool {
    let chunk = words(chunk);
    let (both, either) = overlap(said, &chunk);
    // both / either > 0.6 without rounding; a sentence without words has none in common
    contains_run(&chunk, said) || 5 * both > 3 * either
}

/// The answer that the cited chunk gives, where the clause of the citation states it.
fn side_of(evidence: &Evidence, citation: &Citation, response: &str) -> Option<usize> {
    let side = evidence.cluster_of(&citation.chunk_id)?;
    let clause = words(&response[citation.clause.clone()]);
    contains_run(&clause, &evidence.clusters[side].core).then_some(side)
}

/// Runs the gate over all responses.
///
/// # Errors
/// [`Error::OneSided`](crate::Error::OneSided) without resolved or without indeterminate prompts,
/// [`Error::TooFewPrompts`](crate::Error::TooFewPrompts) below the configured number of either.
pub fn citations(answered: &[Answered<'_>], config: &GateConfig) -> Result<CitationReport> {
    check_balance(answered.iter().map(|one| one.label), config)?;
    let prompts: Vec<PromptCitations> = answered.iter().map(judge_citations).collect();
    let with = |label| prompts.iter().filter(move |prompt| prompt.label == Some(label));
    let gated: Vec<&PromptCitations> =
        prompts.iter().filter(|p| matches!(p.label, Some(Label::Resolved | Label::Indeterminate))).collect();
    let resolved: Vec<&PromptCitations> = with(Label::Resolved).collect();
    let quotient = |of: &[&PromptCitations], count: fn(&PromptCitations) -> Counts| {
        let counts: Vec<Counts> = of.iter().map(|prompt| count(prompt)).collect();
        Figure::quotient(&counts, config.bootstrap)
    };
    let mean = |of: &[&PromptCitations], count: fn(&PromptCitations) -> Counts| {
        let counts = of.iter().map(|prompt| count(prompt)).filter(|counts| counts.denominator > 0);
        let values: Vec<f64> = counts.map(|counts| counts.numerator as f64 / counts.denominator as f64).collect();
        Figure::mean(&values, config.bootstrap)
    };
    let is_attributed = answered
        .iter()
        .all(|one| one.is_attributed || !matches!(one.label, Some(Label::Resolved | Label::Indeterminate)));
    let contested: Vec<&PromptCitations> = with(Label::Contested).collect();
    let reaching = |wanted: fn(u64) -> bool| {
        let count = contested.iter().filter(|prompt| prompt.sides.is_some_and(wanted)).count();
        Figure::share(count as u64, contested.len() as u64)
    };
    let figures = CitationFigures {
        precision: quotient(&gated, PromptCitations::valid),
        precision_macro: mean(&gated, PromptCitations::valid),
        recall: quotient(&resolved, PromptCitations::recalled),
        recall_macro: mean(&resolved, PromptCitations::recalled),
        support_precision: is_attributed.then(|| quotient(&gated, PromptCitations::supported)),
        contested: (!contested.is_empty()).then(|| ContestedCitations {
            precision: quotient(&contested, PromptCitations::valid),
            disclosed: reaching(|sides| sides > 1),
            one_sided: reaching(|sides| sides == 1),
        }),
    };
    Ok(CitationReport { figures, prompts })
}

impl PromptCitations {
    fn valid(&self) -> Counts {
        Counts { numerator: self.n_valid, denominator: self.citations.len() as u64 }
    }

    fn recalled(&self) -> Counts {
        Counts { numerator: self.n_relevant_cited, denominator: self.n_relevant }
    }

    fn supported(&self) -> Counts {
        let relevant = self.citations.iter().filter(|citation| citation.relevant).count();
        Counts { numerator: relevant as u64, denominator: self.citations.len() as u64 }
    }
}
