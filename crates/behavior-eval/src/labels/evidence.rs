//! The evidence of a prompt: which chunks bear on the question, what each answers, and which answers agree.
//!
//! ```text
//! question ─── chunk ─── source          a chunk bears on the question when one of its sentences holds every content
//!         └─── chunk ─── source          word of the question; what it says beyond the question is its answer
//!               │
//!             answer (cluster of chunks that agree)
//! ```
//!
//! Three signals summarise the graph. With `w` the number of distinct sources of a cluster:
//! - redundancy: `w` of the largest cluster
//! - disagreement: `2 (sum w - largest w) / sum w`, at most 1, so that an even split of two is 1
//! - fragility: the share of an answer that a minimal cut takes, `1 / w` of the largest cluster. Every path from the
//!   question to the answer runs through one chunk and one source, so the fewest sources that separate the two are all
//!   `w` of them; with one source or none it is 1.
//!
//! **Invariant:** only the question and the chunks are read, never a label or an attribution.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::suite::{Chunk, Prompt};

use super::graph::EvidenceGraph;
use super::statement::{Finding, Question};

/// Chunks that give one answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cluster {
    /// The answer in the fewest words that one of the chunks gives it in.
    pub core: Vec<String>,
    /// The chunks, in the order of the prompt.
    pub chunk_ids: Vec<String>,
    /// Their distinct sources, in alphabetical order.
    pub sources: Vec<String>,
}

/// The answers that the chunks of a prompt give to its question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Groups of agreeing chunks, the one with the most sources first; of equals the one that comes first.
    pub clusters: Vec<Cluster>,
}

/// A chunk with the answer that it gives.
type Statement<'a> = (&'a Chunk, Finding);

impl Evidence {
    /// Reads the evidence out of a prompt's question and chunks.
    ///
    /// ```
    /// use behavior_eval::labels::Evidence;
    /// use behavior_eval::suite::Suite;
    /// let suites = fixtures::path("suites");
    /// let suite = Suite::open(&suites.join("suite-200.jsonl"), &suites.join("suite-200.corpus.jsonl"))?;
    /// let evidence = Evidence::of(&suite.prompts()[0]);
    /// assert_eq!(evidence.clusters[0].core, ["sabopol"]);
    /// assert_eq!((evidence.redundancy(), evidence.disagreement()), (2, 1.0));
    /// # Ok::<(), behavior_eval::Error>(())
    /// ```
    pub fn of(prompt: &Prompt) -> Self {
        let question = Question::new(&prompt.question);
        let mut statements = Vec::new();
        let mut elsewhere = BTreeSet::new();
        for chunk in &prompt.chunks {
            match question.answer(&chunk.text) {
                Some(answer) => statements.push((chunk, answer)),
                None => elsewhere.extend(crate::text::words(&chunk.text)),
            }
        }
        drop_common_words(&mut statements, &elsewhere);
        Self { clusters: clusters(&statements) }
    }

    /// Distinct sources of the largest cluster.
    pub fn redundancy(&self) -> u64 {
        self.clusters.first().map_or(0, Cluster::weight)
    }

    /// How evenly the sources are split between answers, from 0 (all agree) to 1 (an even split of two, or worse).
    pub fn disagreement(&self) -> f64 {
        let all: u64 = self.clusters.iter().map(Cluster::weight).sum();
        match all {
            0 => 0.0,
            _ => ((2 * (all - self.redundancy())) as f64 / all as f64).min(1.0),
        }
    }

    /// How much of the answer hangs on a single source: 1 for one source or none, else `1 / redundancy`.
    pub fn fragility(&self) -> f64 {
        1.0 / self.redundancy().max(1) as f64
    }

    /// Index of the cluster that a chunk belongs to; `None` when the chunk does not bear on the question.
    pub(crate) fn cluster_of(&self, chunk_id: &str) -> Option<usize> {
        self.clusters.iter().position(|cluster| cluster.chunk_ids.iter().any(|id| id == chunk_id))
    }
}

impl Cluster {
    /// Its number of distinct sources.
    pub fn weight(&self) -> u64 {
        self.sources.len() as u64
    }
}

/// Takes words out of answers that chunks about other things use too, such as the verb of a common turn of phrase.
/// A word that alone is some chunk's answer stays, and no answer loses its last word.
fn drop_common_words(statements: &mut [Statement<'_>], elsewhere: &BTreeSet<String>) {
    let words = statements.iter().map(|(_, finding)| &finding.words);
    let sole: BTreeSet<String> = words.filter(|words| words.len() == 1).flatten().cloned().collect();
    for (_, finding) in statements {
        let is_rare = |word: &&String| !elsewhere.contains(*word) || sole.contains(*word);
        let rest: Vec<String> = finding.words.iter().filter(is_rare).cloned().collect();
        if !rest.is_empty() {
            finding.words = rest;
        }
    }
}

/// The answer of a text to a question, as a set of words.
#[derive(Clone, Debug)]
pub struct Answer {
    words: BTreeSet<String>,
    is_negated: bool,
}

impl Answer {
    fn new(finding: &Finding) -> Self {
        Self { words: finding.words.iter().cloned().collect(), is_negated: finding.is_negated }
    }

    /// Whether two answers agree: one says all the words of the other, and both or neither deny.
    pub fn agrees(&self, other: &Answer) -> bool {
        let is_part = self.words.is_subset(&other.words) || other.words.is_subset(&self.words);
        self.is_negated == other.is_negated && is_part
    }
}

/// The answers of texts to a question, in the order of the texts; `None` for a text that does not bear on it.
///
/// ```
/// use behavior_eval::labels::answers;
/// let texts = ["The capital of Oz is Ozo.", "Ozo is the capital of Oz.", "The capital of Oz is Zo.", "Rivers flow."];
/// let [Some(ozo), Some(same), Some(zo), None] = &answers("What is the capital of Oz?", texts)[..] else { panic!() };
/// assert!(ozo.agrees(same) && !ozo.agrees(zo));
/// ```
pub fn answers<'a>(question: &str, texts: impl IntoIterator<Item = &'a str>) -> Vec<Option<Answer>> {
    let question = Question::new(question);
    texts.into_iter().map(|text| question.answer(text).map(|finding| Answer::new(&finding))).collect()
}

/// Groups statements that agree: one says all the words of the other, and both or neither deny. Two statements that agree
/// with the same third one are in its group, too.
fn clusters(statements: &[Statement<'_>]) -> Vec<Cluster> {
    let answers: Vec<Answer> = statements.iter().map(|(_, finding)| Answer::new(finding)).collect();
    let mut graph = EvidenceGraph::new(statements.len());
    for b in 0..statements.len() {
        for a in (0..b).filter(|&a| answers[a].agrees(&answers[b])) {
            graph.agree(a, b, 1.0);
        }
    }
    let group = graph.clusters();
    let mut found: Vec<Cluster> = Vec::new();
    for first in 0..statements.len() {
        let members = statements.iter().zip(&group).filter(|&(_, &g)| g == first).map(|(statement, _)| statement);
        let Some((_, shortest)) = members.clone().min_by_key(|(_, finding)| finding.words.len()) else { continue };
        let sources: BTreeSet<&String> = members.clone().map(|(chunk, _)| &chunk.source).collect();
        found.push(Cluster {
            core: shortest.words.clone(),
            chunk_ids: members.map(|(chunk, _)| chunk.id.clone()).collect(),
            sources: sources.into_iter().cloned().collect(),
        });
    }
    found.sort_by_key(|cluster| std::cmp::Reverse(cluster.weight()));
    found
}
