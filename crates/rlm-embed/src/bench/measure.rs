//! Figures of every claim, for the encoder alone and for the recursion.
//!
//! A figure is a number per claim, so that two ways of embedding are compared claim by claim. All are computed in one corpus that
//! holds every claim with its paraphrase, its contradictions and a claim about another subject, and the distractors.

use std::sync::Arc;

use tl_kernels::Pool;

use super::claims::{ClaimSet, Kind};
use crate::encoder::{BaseEmbedder, cosine};
use crate::error::Result;
use crate::graph::{Evidence, Passage, Relation, RelationRules};
use crate::recursion::{Corpus, RecursionConfig, RlmEmbedder, RlmEmbedding, Variant};
use crate::store::{FlatNeighborStore, Neighbor, NeighborRetriever};

/// Neighbours of a claim among which support is counted.
const SUPPORT: usize = 5;
/// One of this many texts that are no claim is taken away to measure stability.
const THINNED: usize = 10;

/// The figures of one claim.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClaimFigures {
    /// 1 when the text nearest to the query is the claim or its paraphrase. Where several are equally near, here and below, the
    /// probability of that for a random order of equals.
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
    /// Cosine distance that the claim, for variant A its query, moves when a tenth of the texts that are no claim is taken away.
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
        Some(config) => recursive(set, encoder, config, Some(&thinned(set)?)),
    }
}

/// As [`measure`] with a recursion, without the drift, which is 0.
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
    thinned: Option<&FlatNeighborStore>,
) -> Result<Vec<ClaimFigures>> {
    let embedder = RlmEmbedder::new(encoder, config);
    match config.variant {
        Variant::Query => of_queries(set, embedder, &config.rules, thinned),
        Variant::Corpus | Variant::Twin => of_chunks(set, embedder, &config.rules, thinned),
    }
}

/// Variant A: queries are embedded with the corpus, chunks have the encoder's vectors.
fn of_queries<E: BaseEmbedder>(
    set: &ClaimSet,
    mut embedder: RlmEmbedder<&mut E>,
    rules: &RelationRules,
    thinned: Option<&FlatNeighborStore>,
) -> Result<Vec<ClaimFigures>> {
    let (mut queries, mut drifts) = (Vec::new(), Vec::new());
    for claim in &set.claims {
        let vector = embedder.embed(&claim.query, None, Corpus::exact(&set.store))?.vector;
        drifts.push(match thinned {
            Some(other) => distance(&vector, &embedder.embed(&claim.query, None, Corpus::exact(other))?.vector),
            None => 0.0,
        });
        queries.extend(vector);
    }
    let view = View { set, store: &set.store, queries: &queries, flags: Some(rules) };
    Ok(drifts.into_iter().enumerate().map(|(i, drift)| view.figures(i, drift)).collect())
}

/// Variants B and C: the texts of claims are embedded with the corpus, queries and distractors have the encoder's vectors.
fn of_chunks<E: BaseEmbedder>(
    set: &ClaimSet,
    mut embedder: RlmEmbedder<&mut E>,
    rules: &RelationRules,
    thinned: Option<&FlatNeighborStore>,
) -> Result<Vec<ClaimFigures>> {
    let corpus = Corpus::exact(&set.store);
    let pool = Arc::new(Pool::serial());
    let mut store = FlatNeighborStore::in_memory(set.store.dims(), set.store.identity(), pool);
    let (mut drifts, mut twins) = (Vec::new(), Vec::new());
    for row in set.store.live_rows() {
        let chunk = set.store.chunk(row);
        if row >= set.n_claim_texts() {
            store.add(&[chunk], set.store.vector(row))?;
            continue;
        }
        let RlmEmbedding { vector, twin, .. } = embedder.embed(chunk.text, Some(row), corpus)?;
        if set.rows.contains(&row) {
            drifts.push(match thinned {
                Some(other) => {
                    let moved = embedder.embed(chunk.text, other.row_of(chunk.id), Corpus::exact(other))?;
                    distance(&vector, &moved.vector)
                }
                None => 0.0,
            });
            twins.push(twin);
        }
        store.add(&[chunk], &vector)?;
    }
    let view = View { set, store: &store, queries: &set.queries, flags: Some(rules) };
    let figures = (0..set.claims.len()).map(|i| {
        let mut figures = view.figures(i, drifts[i]);
        // Variant C answers with the vector of the other side, which stands for all contradictions.
        if let Some(twin) = &twins[i] {
            figures.separation = distance(store.vector(set.rows[i]), twin);
        }
        figures
    });
    Ok(figures.collect())
}

/// A copy of the store without a tenth of the texts that are no claim.
fn thinned(set: &ClaimSet) -> Result<FlatNeighborStore> {
    let mut store = FlatNeighborStore::in_memory(set.store.dims(), set.store.identity(), Arc::new(Pool::serial()));
    for (n, row) in set.store.live_rows().filter(|row| !set.rows.contains(row)).enumerate() {
        if n % THINNED != 0 {
            store.add(&[set.store.chunk(row)], set.store.vector(row))?;
        }
    }
    for &row in &set.rows {
        store.add(&[set.store.chunk(row)], set.store.vector(row))?;
    }
    Ok(store)
}

/// The texts of a store by their score. Equal scores have no order: a text among equals is among the first by chance.
struct Ranking(Vec<Neighbor>);

impl Ranking {
    /// All texts but that of row `own`, by their score for `query`.
    fn new(store: &FlatNeighborStore, query: &[f32], own: Option<usize>) -> Ranking {
        let mut all = store.nearest(query, store.len());
        all.retain(|found| Some(found.row) != own);
        Ranking(all)
    }

    /// The probability that `row` is among the first `k`, when equal scores are ordered at random.
    fn chance(&self, row: usize, k: usize) -> f64 {
        let Some(own) = self.0.iter().find(|found| found.row == row) else { return 0.0 };
        let before = self.0.iter().filter(|found| found.score > own.score).count();
        let equal = self.0.iter().filter(|found| found.score == own.score).count();
        (k.saturating_sub(before) as f64 / equal as f64).min(1.0)
    }

    /// The rows that may be among the first `k`.
    fn first(&self, k: usize) -> impl Iterator<Item = usize> {
        self.0.iter().map(|found| found.row).filter(move |&row| self.chance(row, k) > 0.0)
    }
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
        let found = Ranking::new(self.store, query, None);
        let support = self.set.texts(i).filter(|text| matches!(text.1, None | Some(Kind::Paraphrase)));
        let distance_to = |other: usize| distance(self.store.vector(row), self.store.vector(other));
        let opposing: Vec<usize> =
            self.set.texts(i).filter(|text| text.1.is_some_and(Kind::contradicts)).map(|text| text.0).collect();
        let paraphrases = self.set.texts(i).filter(|text| text.1 == Some(Kind::Paraphrase));
        let near = Ranking::new(self.store, self.store.vector(row), Some(row));
        ClaimFigures {
            top1: support.map(|text| found.chance(text.0, 1)).sum(),
            top5: found.chance(row, 5),
            false_neighbors: mean(opposing.iter().map(|&other| match self.is_flagged(row, other) {
                true => 0.0,
                false => near.chance(other, SUPPORT),
            })),
            purity: self.purity(i, &near),
            separation: mean(opposing.iter().map(|&row| distance_to(row))),
            paraphrase: mean(paraphrases.map(|text| distance_to(text.0))),
            relevance: f64::from(cosine(query, self.store.vector(row))),
            drift,
        }
    }

    /// A row as the rules compare it: subjects by the encoder's own vectors, statements by their words.
    fn passage(&self, row: usize) -> Passage<'_> {
        Passage::new(self.set.store.chunk(row).text, self.set.store.vector(row))
    }

    fn is_flagged(&self, a: usize, b: usize) -> bool {
        let contradicts = |rules| matches!(self.passage(a).relation(&self.passage(b), rules), Relation::Contradicts(_));
        self.flags.is_some_and(contradicts)
    }

    /// Purity of the cluster of claim `i` among itself and its nearest texts.
    fn purity(&self, i: usize, near: &Ranking) -> f64 {
        let row = self.set.rows[i];
        let rows: Vec<usize> = std::iter::once(row).chain(near.first(SUPPORT)).collect();
        let members: Vec<usize> = match self.flags {
            None => {
                let least = RelationRules::default().least_cosine;
                let is_near = |other: &usize| cosine(self.store.vector(row), self.store.vector(*other)) >= least;
                rows.iter().copied().filter(is_near).collect()
            }
            Some(rules) => {
                let passages: Vec<Passage<'_>> = rows.iter().map(|&row| self.passage(row)).collect();
                let clusters = Evidence::of(None, &passages, rules).graph.clusters();
                let same = rows.iter().zip(&clusters).filter(|(_, cluster)| **cluster == clusters[0]);
                same.map(|(row, _)| *row).collect()
            }
        };
        let is_own = |member: &usize| {
            self.set.texts(i).any(|(row, kind)| row == *member && matches!(kind, None | Some(Kind::Paraphrase)))
        };
        mean(members.iter().map(|member| f64::from(u8::from(is_own(member)))))
    }
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    f64::from(1.0 - cosine(a, b))
}

/// The mean of some numbers, 0 of none.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (n, sum) = values.fold((0u32, 0.0), |(n, sum), value| (n + 1, sum + value));
    if n == 0 { 0.0 } else { sum / f64::from(n) }
}

#[cfg(test)]
mod tests {
    use super::{Neighbor, Ranking};

    #[test]
    fn equal_scores_share_the_places_that_they_reach() {
        let found = |(row, score)| Neighbor { row, score };
        let ranking = Ranking([(4, 0.9), (1, 0.5), (2, 0.5), (7, 0.5), (0, 0.1)].map(found).to_vec());
        assert_eq!([4, 1, 0, 9].map(|row| ranking.chance(row, 1)), [1.0, 0.0, 0.0, 0.0]);
        assert_eq!([4, 1, 2, 7].map(|row| ranking.chance(row, 2)), [1.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0]);
        assert_eq!([1, 0].map(|row| ranking.chance(row, 4)), [1.0, 0.0]);
        assert!(ranking.first(2).eq([4, 1, 2, 7]));
    }
}
