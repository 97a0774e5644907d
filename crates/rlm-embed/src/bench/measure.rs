//! Figures of every claim, for the encoder alone and for the recursion.
//!
//! A figure is a number per claim, so that two ways of embedding are compared claim by claim. All are computed in one corpus that
//! holds every claim with its paraphrase, its contradictions and a claim about another subject, and the distractors.

use std::sync::Arc;

use tl_kernels::Pool;

use super::claims::{ClaimSet, Kind};
use crate::encoder::{BaseEmbedder, cosine};
use crate::error::Result;
use crate::graph::{Relation, RelationRules, Statement, evidence};
use crate::recursion::{Corpus, RecursionConfig, RlmEmbedder, RlmEmbedding, Variant};
use crate::store::{FlatNeighborStore, Neighbor, NeighborRetriever};

/// Neighbours of a claim among which support is counted.
const SUPPORT: usize = 5;
/// Every tenth text that belongs to no claim under measurement is exchanged to measure stability.
const EXCHANGED: usize = 10;

/// The figures of one claim.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClaimFigures {
    /// 1 when the text nearest to the query is the claim or its paraphrase.
    pub top1: f64,
    /// 1 when the claim is among the five texts nearest to the query.
    pub top5: f64,
    /// Share of the claim's contradictions that count as support: among its five nearest texts, and not flagged.
    pub false_neighbors: f64,
    /// Share of the texts in the claim's cluster that do not contradict it and are not about another subject.
    pub purity: f64,
    /// Mean cosine distance between the claim and its contradictions.
    pub separation: f64,
    /// Cosine distance between the claim and its paraphrase.
    pub paraphrase: f64,
    /// Cosine between the query and the claim.
    pub relevance: f64,
    /// Cosine distance that the claim moves when a tenth of the corpus is exchanged.
    pub drift: f64,
}

impl ClaimFigures {
    /// Names and values, in the order of reports.
    #[must_use]
    pub fn named(&self) -> [(&'static str, f64); 8] {
        [
            ("top1", self.top1),
            ("top5", self.top5),
            ("false_neighbors", self.false_neighbors),
            ("purity", self.purity),
            ("separation", self.separation),
            ("paraphrase", self.paraphrase),
            ("relevance", self.relevance),
            ("drift", self.drift),
        ]
    }
}

/// The figures of every claim: of the encoder alone where `config` is `None`.
///
/// # Errors
/// A text that the encoder cannot take.
pub fn measure<E: BaseEmbedder>(
    set: &ClaimSet,
    encoder: &mut E,
    config: Option<RecursionConfig>,
) -> Result<Vec<ClaimFigures>> {
    match config {
        None => Ok(alone(set)),
        Some(config) => recursive(set, encoder, config, Some(&exchanged(set)?)),
    }
}

/// As [`measure`] with a recursion, without the drift between two corpora, which is 0.
pub(super) fn measure_in_one_corpus<E: BaseEmbedder>(
    set: &ClaimSet,
    encoder: &mut E,
    config: RecursionConfig,
) -> Result<Vec<ClaimFigures>> {
    recursive(set, encoder, config, None)
}

/// The encoder alone: stored vectors, no flags, clusters by cosine.
fn alone(set: &ClaimSet) -> Vec<ClaimFigures> {
    let view = View { set, store: &set.store, queries: &set.queries, flags: None };
    (0..set.claims.len()).map(|i| view.figures(i, 0.0)).collect()
}

fn recursive<E: BaseEmbedder>(
    set: &ClaimSet,
    encoder: &mut E,
    config: RecursionConfig,
    exchanged: Option<&FlatNeighborStore>,
) -> Result<Vec<ClaimFigures>> {
    let mut embedder = RlmEmbedder::new(encoder, config);
    let corpus = Corpus::exact(&set.store);
    let dims = set.store.dims();
    if config.variant == Variant::Query {
        let mut queries = Vec::with_capacity(set.queries.len());
        for claim in &set.claims {
            queries.extend(embedder.embed(&claim.query, None, corpus)?.vector);
        }
        let view = View { set, store: &set.store, queries: &queries, flags: Some(&config.rules) };
        return Ok((0..set.claims.len()).map(|i| view.figures(i, 0.0)).collect());
    }
    let mut store = FlatNeighborStore::in_memory(dims, set.store.identity(), Arc::new(Pool::serial()));
    let mut drifts = Vec::with_capacity(set.claims.len());
    let mut twins = Vec::with_capacity(set.claims.len());
    for row in set.store.live_rows() {
        let chunk = set.store.chunk(row);
        let vector = match row >= set.n_claim_texts() {
            true => set.store.vector(row).to_vec(),
            false => {
                let RlmEmbedding { vector, twin, .. } = embedder.embed(chunk.text, Some(row), corpus)?;
                if set.rows.contains(&row) {
                    drifts.push(match exchanged {
                        Some(other) => {
                            let moved = embedder.embed(chunk.text, other.row_of(chunk.id), Corpus::exact(other))?;
                            f64::from(1.0 - cosine(&vector, &moved.vector))
                        }
                        None => 0.0,
                    });
                    twins.push(twin);
                }
                vector
            }
        };
        store.add(&[chunk], &vector)?;
    }
    let view = View { set, store: &store, queries: &set.queries, flags: Some(&config.rules) };
    let figures = (0..set.claims.len()).map(|i| {
        let mut figures = view.figures(i, drifts[i]);
        // Variant C answers with the vector of the other side, which stands for all contradictions.
        if let Some(twin) = &twins[i] {
            figures.separation = f64::from(1.0 - cosine(store.vector(set.rows[i]), twin));
        }
        figures
    });
    Ok(figures.collect())
}

/// A copy of the store in which a tenth of the texts beside claims is gone.
fn exchanged(set: &ClaimSet) -> Result<FlatNeighborStore> {
    let mut store = FlatNeighborStore::in_memory(set.store.dims(), set.store.identity(), Arc::new(Pool::serial()));
    for (n, row) in set.store.live_rows().filter(|row| !set.rows.contains(row)).enumerate() {
        if n % EXCHANGED != 0 {
            store.add(&[set.store.chunk(row)], set.store.vector(row))?;
        }
    }
    for &row in &set.rows {
        store.add(&[set.store.chunk(row)], set.store.vector(row))?;
    }
    Ok(store)
}

/// Vectors of a claim set, made in one way.
struct View<'a> {
    set: &'a ClaimSet,
    store: &'a FlatNeighborStore,
    queries: &'a [f32],
    /// How contradictions are flagged; `None` flags nothing.
    flags: Option<&'a RelationRules>,
}

impl View<'_> {
    fn figures(&self, i: usize, drift: f64) -> ClaimFigures {
        let (row, dims) = (self.set.rows[i], self.store.dims());
        let query = &self.queries[i * dims..][..dims];
        let found = self.store.nearest(query, SUPPORT);
        let kind_of = |row: usize| self.set.texts(i).find(|text| text.0 == row).map(|text| text.1);
        let is_support = |found: &Neighbor| matches!(kind_of(found.row), Some(None | Some(Kind::Paraphrase)));
        let distance = |other: usize| f64::from(1.0 - cosine(self.store.vector(row), self.store.vector(other)));
        let opposing: Vec<usize> =
            self.set.texts(i).filter(|text| text.1.is_some_and(Kind::contradicts)).map(|text| text.0).collect();
        let paraphrases = self.set.texts(i).filter(|text| text.1 == Some(Kind::Paraphrase));
        ClaimFigures {
            top1: f64::from(u8::from(found.first().is_some_and(is_support))),
            top5: f64::from(u8::from(found.iter().any(|found| found.row == row))),
            false_neighbors: self.false_neighbors(row, &opposing),
            purity: self.purity(i),
            separation: mean(opposing.iter().map(|&row| distance(row))),
            paraphrase: mean(paraphrases.map(|text| distance(text.0))),
            relevance: f64::from(cosine(query, self.store.vector(row))),
            drift,
        }
    }

    fn relation(&self, rules: &RelationRules, a: usize, b: usize) -> Relation {
        // Subjects are compared by the encoder's own vectors, statements by their words.
        let cosine = cosine(self.set.store.vector(a), self.set.store.vector(b));
        let [a, b] = [a, b].map(|row| Statement::new(self.set.store.chunk(row).text));
        rules.relation(&a, &b, cosine)
    }

    fn false_neighbors(&self, row: usize, opposing: &[usize]) -> f64 {
        let found = self.store.nearest(self.store.vector(row), SUPPORT + 1);
        let supports = |other: usize| {
            let is_near = found.iter().any(|found| found.row == other);
            let is_flagged =
                self.flags.is_some_and(|rules| matches!(self.relation(rules, row, other), Relation::Contradicts(_)));
            is_near && !is_flagged
        };
        mean(opposing.iter().map(|&other| f64::from(u8::from(supports(other)))))
    }

    /// Purity of the cluster of claim `i` among itself and its nearest texts.
    fn purity(&self, i: usize) -> f64 {
        let row = self.set.rows[i];
        let near = self.store.nearest(self.store.vector(row), SUPPORT + 1);
        let rows: Vec<usize> =
            std::iter::once(row).chain(near.iter().map(|n| n.row).filter(|&other| other != row)).collect();
        let members: Vec<usize> = match self.flags {
            None => {
                let least = RelationRules::default().least_cosine;
                let is_near = |other: &usize| cosine(self.store.vector(row), self.store.vector(*other)) >= least;
                rows.iter().copied().filter(is_near).collect()
            }
            Some(rules) => {
                let texts: Vec<&str> = rows.iter().map(|&row| self.store.chunk(row).text).collect();
                let vectors: Vec<f32> = rows.iter().flat_map(|&row| self.set.store.vector(row)).copied().collect();
                let clusters = evidence(None, &texts, &vectors, rules).clusters();
                rows.iter()
                    .zip(&clusters)
                    .filter(|(_, cluster)| **cluster == clusters[0])
                    .map(|(row, _)| *row)
                    .collect()
            }
        };
        let is_own = |member: &usize| {
            self.set.texts(i).any(|(row, kind)| row == *member && matches!(kind, None | Some(Kind::Paraphrase)))
        };
        mean(members.iter().map(|member| f64::from(u8::from(is_own(member)))))
    }
}

/// The mean of some numbers, 0 of none.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (n, sum) = values.fold((0u32, 0.0), |(n, sum), value| (n + 1, sum + value));
    if n == 0 { 0.0 } else { sum / f64::from(n) }
}
