//! The evidence graph of chunks: edges from what they say where a question lets them be parsed, else from their words and vectors.

use behavior_eval::labels::{EvidenceGraph, agreement};

use super::relation::{Relation, RelationRules};
use super::statement::Statement;
use crate::encoder::cosine;

/// The graph of `texts` with their `vectors` `[texts, dims]`. With a `question`, texts that answer it agree or disagree by
/// their answers, as in the labels of prompts; all other pairs by `rules`.
///
/// # Panics
/// If there is not one vector per text.
#[must_use]
pub fn evidence(question: Option<&str>, texts: &[&str], vectors: &[f32], rules: &RelationRules) -> EvidenceGraph {
    let mut graph = EvidenceGraph::new(texts.len());
    let Some(dims) = vectors.len().checked_div(texts.len()) else { return graph };
    assert_eq!(vectors.len(), dims * texts.len(), "one vector per text");
    let statements: Vec<Statement> = texts.iter().map(|text| Statement::new(text)).collect();
    for b in 0..texts.len() {
        for a in 0..b {
            let cosine = cosine(&vectors[a * dims..][..dims], &vectors[b * dims..][..dims]);
            let parsed = question.and_then(|question| agreement(question, texts[a], texts[b]));
            let relation = || rules.relation(&statements[a], &statements[b], cosine);
            match parsed {
                Some(true) => graph.agree(a, b, 1.0),
                Some(false) => graph.disagree(a, b),
                None => match relation() {
                    Relation::Agrees => graph.agree(a, b, f64::from(cosine)),
                    Relation::Contradicts(_) => graph.disagree(a, b),
                    Relation::Unrelated => {}
                },
            }
        }
    }
    graph
}
