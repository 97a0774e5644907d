//! A prompt on its way from the suite to the report, under one model.
//!
//! ```text
//! suite      prompt
//! labels     label, relevant
//! run        answer, routing
//! gates      citations, sides, refusal_signal
//! report     its line in the list of prompts and of the worst prompts
//! ```
//! A citation is valid when the prompt has the chunk and the cited sentence, its citations left out, stands in the chunk
//! word by word or shares more than 0.6 of all words with it (Jaccard index of the two sets of words). Nothing may be
//! cited on an indeterminate prompt. On a contested prompt a citation is valid when the clause before its group states
//! the answer of the cited chunk.
//!
//! A response refuses when it holds one of the configured signals. A response without a word neither answers nor refuses.

use std::collections::BTreeSet;
use std::ops::Range;

use super::routing::RoutingFigures;
use super::signals::RefusalSignals;
use crate::labels::{Evidence, PromptLabel};
use crate::model::Answer;
use crate::suite::{Label, Prompt};
use crate::text::{Citation, contains_run, overlap, sentences, words};

/// Everything that is known of one prompt under one model.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct PromptRecord<'a> {
    pub prompt: &'a Prompt,
    /// The answer that the evidence allows: the suite's own label, else the one by the rules. A prompt without one is judged and
    /// listed, but not gated.
    pub label: Option<Label>,
    /// Ids of the chunks that an answer should cite: the suite's own, else those by the rules.
    pub relevant: &'a [String],
    pub answer: Answer,
    pub citations: Vec<JudgedCitation>,
    /// Different answers of the evidence that a valid citation reaches; more than one discloses a conflict. Only for
    /// contested prompts.
    pub sides: Option<u64>,
    /// The signal that makes the answer a refusal.
    pub refusal_signal: Option<String>,
    /// Routing of the prompt and the teacher's answer against the teacher's; absent for the teacher.
    pub routing: Option<RoutingFigures>,
}

/// One citation with its verdict.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct JudgedCitation {
    /// The id between the brackets.
    pub chunk_id: String,
    /// Bytes of the id in the response.
    pub span: Range<usize>,
    /// Whether it is valid.
    pub valid: bool,
    pub verdict: CitationVerdict,
    /// Whether it is one of the chunks that an answer should cite.
    pub relevant: bool,
    /// The text it supports: the sentence or, on a contested prompt, the clause.
    pub said: String,
}

/// The judgement of one citation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "variants without a sentence speak for themselves")]
pub enum CitationVerdict {
    /// The chunk supports the sentence or, on a contested prompt, the clause.
    Valid,
    NoSuchChunk,
    /// The chunk does not support the sentence or clause.
    NotSupported,
    /// The evidence allows no answer, so there is nothing to cite.
    NothingToCite,
}

impl<'a> PromptRecord<'a> {
    /// Judges an answer. A label or relevant chunks that the suite leaves out come from the evidence, where that is given.
    pub fn new(
        prompt: &'a Prompt,
        evidence: Option<&'a PromptLabel>,
        answer: Answer,
        signals: &RefusalSignals,
    ) -> Self {
        let label = prompt.label.or(evidence.and_then(|evidence| evidence.label));
        let found = evidence.map(|evidence| &evidence.relevant);
        let mut record = Self {
            prompt,
            label,
            relevant: prompt.relevant.as_ref().or(found).map_or(&[], Vec::as_slice),
            citations: Vec::new(),
            sides: None,
            refusal_signal: signals.find(&answer.text).map(str::to_owned),
            answer,
            routing: None,
        };
        record.judge_citations();
        record
    }

    fn judge_citations(&mut self) {
        let Self { prompt, label, relevant, .. } = *self;
        let response = &self.answer.text;
        // Only contested prompts are judged by what each chunk answers.
        let evidence = (label == Some(Label::Contested)).then(|| Evidence::of(prompt));
        let mut sides = BTreeSet::new();
        for sentence in sentences(response, prompt) {
            let words = words(&sentence.text);
            for citation in sentence.citations {
                let verdict = match (&evidence, prompt.chunk(&citation.chunk_id)) {
                    (_, None) => CitationVerdict::NoSuchChunk,
                    (None, Some(_)) if label == Some(Label::Indeterminate) => CitationVerdict::NothingToCite,
                    (None, Some(chunk)) => supported(sentence_stands_in(&words, &chunk.text)),
                    (Some(evidence), Some(_)) => {
                        let side = side_of(evidence, &citation, response);
                        sides.extend(side);
                        supported(side.is_some())
                    }
                };
                let said = if evidence.is_some() { &response[citation.clause] } else { &sentence.text };
                self.citations.push(JudgedCitation {
                    relevant: relevant.contains(&citation.chunk_id),
                    chunk_id: citation.chunk_id,
                    span: citation.span,
                    valid: verdict == CitationVerdict::Valid,
                    verdict,
                    said: said.to_owned(),
                });
            }
        }
        self.sides = evidence.map(|_| sides.len() as u64);
    }

    /// Whether the citations and refusals of the prompt are gated.
    pub(crate) fn is_gated(&self) -> bool {
        self.should_refuse().is_some()
    }

    /// Whether a refusal is due; not decided for contested and unlabelled prompts.
    pub fn should_refuse(&self) -> Option<bool> {
        match self.label? {
            Label::Resolved => Some(false),
            Label::Indeterminate => Some(true),
            Label::Contested => None,
        }
    }

    /// Whether the answer refuses.
    pub fn did_refuse(&self) -> bool {
        self.refusal_signal.is_some()
    }

    /// Whether the answer says nothing at all.
    pub(crate) fn is_wordless(&self) -> bool {
        !self.did_refuse() && words(&self.answer.text).is_empty()
    }

    /// Whether the answer refuses or answers as is due; not decided where nothing is due.
    pub fn refusal_is_right(&self) -> Option<bool> {
        self.should_refuse().map(|due| due == self.did_refuse() && !self.is_wordless())
    }

    /// Valid ones of its citations.
    pub(crate) fn n_valid(&self) -> u64 {
        self.citations.iter().filter(|citation| citation.valid).count() as u64
    }

    /// How many of the relevant chunks are cited.
    pub(crate) fn n_relevant_cited(&self) -> u64 {
        let cited: BTreeSet<&str> =
            self.citations.iter().filter(|citation| citation.relevant).map(|citation| &*citation.chunk_id).collect();
        cited.len() as u64
    }

    /// The label's name in reports.
    pub(crate) fn label_name(&self) -> &'static str {
        self.label.map_or("unlabelled", Label::name)
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
