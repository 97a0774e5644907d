//! The evidence graph of texts: edges from what they say where a question lets them be parsed, else from their words and vectors.

use behavior_eval::labels::{Answer, EvidenceGraph, answers};

use super::relation::{Relation, RelationRules, Signal};
use super::statement::Statement;
use crate::encoder::cosine;

/// A text with its vector, taken apart once for all comparisons.
#[derive(Clone, Debug)]
pub struct Passage<'a> {
    text: &'a str,
    vector: &'a [f32],
    statement: Statement,
}

impl<'a> Passage<'a> {
    /// A text with its vector of unit length.
    #[must_use]
    pub fn new(text: &'a str, vector: &'a [f32]) -> Passage<'a> {
        Passage { text, vector, statement: Statement::new(text) }
    }

    /// The words of the passage.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The relation of two passages by their words and vectors.
    ///
    /// # Panics
    /// If their vectors have different lengths.
    #[must_use]
    pub fn relation(&self, other: &Passage<'_>, rules: &RelationRules) -> Relation {
        rules.relation(&self.statement, &other.statement, cosine(self.vector, other.vector))
    }
}

/// Passages as a graph of agreement and contradiction.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The graph; its nodes are the passages, in order. Parsed agreement weighs 1, other agreement the cosine of the vectors.
    pub graph: EvidenceGraph,
    n: usize,
    /// One for each ordered pair, `[n, n]`.
    relations: Vec<Relation>,
}

impl Evidence {
    /// Compares all pairs of `passages`. With a `question`, passages that answer it agree or contradict each other by their answers,
    /// as in the labels of prompts; all other pairs by `rules`.
    ///
    /// ```
    /// use rlm_embed::graph::{Evidence, Passage, Relation, RelationRules, Signal};
    /// let texts = ["The capital of Oz is Ozo.", "Ozo is the capital of Oz.", "The capital of Oz is Zo."];
    /// let passages = texts.map(|text| Passage::new(text, &[1.0]));
    /// let evidence = Evidence::of(Some("What is the capital of Oz?"), &passages, &RelationRules::default());
    /// assert_eq!(evidence.graph.clusters(), [0, 0, 2]);
    /// assert_eq!(evidence.relation(2, 0), Relation::Contradicts(Signal::Answer));
    /// ```
    ///
    /// # Panics
    /// If vectors have different lengths.
    #[must_use]
    pub fn of(question: Option<&str>, passages: &[Passage<'_>], rules: &RelationRules) -> Evidence {
        let n = passages.len();
        let (mut graph, mut relations) = (EvidenceGraph::new(n), vec![Relation::Unrelated; n * n]);
        let texts = passages.iter().map(|passage| passage.text);
        let answers = question.map_or_else(|| vec![None; n], |asked| answers(asked, texts));
        for b in 0..n {
            for a in 0..b {
                let (one, other) = (&passages[a], &passages[b]);
                let (relation, weight) = match agreement(answers[a].as_ref(), answers[b].as_ref()) {
                    Some(true) => (Relation::Agrees, 1.0),
                    Some(false) => (Relation::Contradicts(Signal::Answer), 0.0),
                    None => (one.relation(other, rules), f64::from(cosine(one.vector, other.vector))),
                };
                match relation {
                    Relation::Agrees => graph.agree(a, b, weight),
                    Relation::Contradicts(_) => graph.disagree(a, b),
                    Relation::Unrelated => {}
                }
                (relations[a * n + b], relations[b * n + a]) = (relation, relation);
            }
        }
        Evidence { graph, n, relations }
    }

    /// The relation of two passages, by their numbers; a passage is unrelated to itself.
    ///
    /// # Panics
    /// If there is no such passage.
    #[must_use]
    pub fn relation(&self, a: usize, b: usize) -> Relation {
        assert!(a < self.n && b < self.n, "passages {a} and {b} of {}", self.n);
        self.relations[a * self.n + b]
    }
}

/// Whether two answers agree; `None` where one of the texts gives none.
fn agreement(a: Option<&Answer>, b: Option<&Answer>) -> Option<bool> {
    Some(a?.agrees(b?))
}
