//! The loop itself.
//!
//! **Invariant:** the result depends on the text, the encoder, the store and the configuration alone.

use super::config::{MergeWeights, RecursionConfig, Variant};
use super::context::context;
use super::outcome::{RlmEmbedding, StopReason, UsedNeighbor};
use crate::encoder::{BaseEmbedder, cosine, normalise};
use crate::error::Result;
use crate::graph::{Evidence, Passage, Relation};
use crate::store::{FlatNeighborStore, NeighborRetriever};

/// The chunks that a text is read with.
#[derive(Clone, Copy)]
pub struct Corpus<'a> {
    /// The texts with their vectors.
    pub store: &'a FlatNeighborStore,
    /// The search over them: the store itself, or a graph over it.
    pub retriever: &'a dyn NeighborRetriever,
}

impl std::fmt::Debug for Corpus<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Corpus").field("chunks", &self.store.len()).finish_non_exhaustive()
    }
}

impl<'a> Corpus<'a> {
    /// The chunks of a store with its exact search.
    #[must_use]
    pub fn exact(store: &'a FlatNeighborStore) -> Corpus<'a> {
        Corpus { store, retriever: store }
    }
}

/// An encoder with the recursion around it.
///
/// ```
/// use std::sync::Arc;
/// use rlm_embed::encoder::{BaseEmbedder, HashEmbedder};
/// use rlm_embed::recursion::{Corpus, RecursionConfig, RlmEmbedder, StopReason, Variant};
/// use rlm_embed::store::{FlatNeighborStore, NewChunk};
/// let mut encoder = HashEmbedder::new(64);
/// let mut store = FlatNeighborStore::in_memory(64, encoder.identity(), Arc::new(tl_kernels::Pool::serial()));
/// let text = "Orrin does not cure marsh fever.";
/// store.add(&[NewChunk { id: "1", source: "notes", text }], &encoder.embed(&[text])?)?;
/// let mut config = RecursionConfig::new(Variant::Corpus);
/// // Vectors of hashed words lie further apart than those of a trained encoder.
/// config.rules.least_cosine = 0.2;
/// let mut embedder = RlmEmbedder::new(encoder, config);
/// let embedding = embedder.embed("Orrin cures marsh fever.", None, Corpus::exact(&store))?;
/// assert_eq!(embedding.stop, StopReason::Contested);
/// assert!(embedding.neighbors[0].contradicts());
/// # Ok::<(), rlm_embed::Error>(())
/// ```
#[derive(Debug)]
pub struct RlmEmbedder<E> {
    base: E,
    config: RecursionConfig,
}

/// The neighbours of one pass.
struct Pass<'c> {
    used: Vec<UsedNeighbor>,
    /// The chunks of `used`.
    passages: Vec<Passage<'c>>,
    /// Row of the nearest chunk that contradicts the text.
    opposing: Option<usize>,
}

impl<E: BaseEmbedder> RlmEmbedder<E> {
    /// A recursion around `base`.
    #[must_use]
    pub fn new(base: E, config: RecursionConfig) -> RlmEmbedder<E> {
        RlmEmbedder { base, config }
    }

    /// The encoder inside of the loop.
    pub fn base(&mut self) -> &mut E {
        &mut self.base
    }

    /// The choices of the recursion, for changes.
    pub fn config(&mut self) -> &mut RecursionConfig {
        &mut self.config
    }

    /// Embeds `text`, read with the chunks of `corpus`. A text that is the chunk of a `row` is not its own neighbour, and its
    /// stored vector is its base.
    ///
    /// # Errors
    /// A text that the encoder cannot take.
    ///
    /// # Panics
    /// If the vectors of the corpus have another length than those of the encoder.
    pub fn embed(&mut self, text: &str, row: Option<usize>, corpus: Corpus<'_>) -> Result<RlmEmbedding> {
        assert_eq!(self.base.dims(), corpus.store.dims(), "the store has vectors of this encoder");
        let base = match row {
            Some(row) => corpus.store.vector(row).to_vec(),
            None => self.base.embed(&[text])?,
        };
        let own = Passage::new(text, &base);
        let mut merged = base.clone();
        let (mut last_context, mut context_vector) = (text.to_owned(), base.clone());
        let mut pass = Pass { used: Vec::new(), passages: Vec::new(), opposing: None };
        let (mut confidence, mut iterations) = (1.0, 0);
        while iterations < self.config.max_iterations {
            iterations += 1;
            pass = self.pass(&own, &merged, (row, corpus));
            let read = context(self.config.variant, text, &pass.agreeing());
            if read != last_context {
                context_vector = self.base.embed(&[&read])?;
                last_context = read;
            }
            let anti = pass.opposing.map(|row| corpus.store.vector(row));
            let next = merge(self.config.weights, &base, &context_vector, anti);
            confidence = cosine(&next, &merged);
            merged = next;
            if confidence >= self.config.converged {
                break;
            }
        }
        let twin = match (self.config.variant, pass.opposing) {
            (Variant::Twin, Some(opposing)) => Some(self.twin(opposing, &base, corpus)?),
            _ => None,
        };
        let (cluster, is_contested) = self.place(own, row, &pass);
        let stop = match () {
            () if is_contested => StopReason::Contested,
            () if confidence >= self.config.converged => StopReason::Converged,
            () => StopReason::MaxIterations,
        };
        Ok(RlmEmbedding { vector: merged, twin, confidence, neighbors: pass.used, cluster, stop, iterations })
    }

    /// Finds the neighbours of `merged` and compares each with the text, which is that of `row`.
    fn pass<'c>(&self, own: &Passage<'_>, merged: &[f32], (row, corpus): (Option<usize>, Corpus<'c>)) -> Pass<'c> {
        let k = self.config.neighbors + usize::from(row.is_some());
        let found = corpus.retriever.nearest(merged, k).into_iter().filter(|found| Some(found.row) != row);
        let (mut used, mut passages) = (Vec::with_capacity(k), Vec::with_capacity(k));
        for found in found.take(self.config.neighbors) {
            let other = Passage::new(corpus.store.chunk(found.row).text, corpus.store.vector(found.row));
            let relation = own.relation(&other, &self.config.rules);
            used.push(UsedNeighbor { row: found.row, score: found.score, relation });
            passages.push(other);
        }
        let opposing = used.iter().find(|neighbor| neighbor.contradicts()).map(|neighbor| neighbor.row);
        Pass { used, passages, opposing }
    }

    /// The vector of the opposing chunk, read with its own neighbours and with the text as its opposite.
    fn twin(&mut self, opposing: usize, base: &[f32], corpus: Corpus<'_>) -> Result<Vec<f32>> {
        let chunk = corpus.store.chunk(opposing);
        let vector = corpus.store.vector(opposing);
        let pass = self.pass(&Passage::new(chunk.text, vector), vector, (Some(opposing), corpus));
        let read = context(self.config.variant, chunk.text, &pass.agreeing());
        let context_vector = if read == chunk.text { vector.to_vec() } else { self.base.embed(&[&read])? };
        Ok(merge(self.config.weights, vector, &context_vector, Some(base)))
    }

    /// The cluster of a text among itself and its neighbours, and whether another cluster contradicts it.
    fn place(&self, own: Passage<'_>, row: Option<usize>, pass: &Pass<'_>) -> (Option<usize>, bool) {
        let passages: Vec<Passage<'_>> = std::iter::once(own).chain(pass.passages.iter().cloned()).collect();
        let graph = Evidence::of(None, &passages, &self.config.rules).graph;
        let clusters = graph.clusters();
        let others = pass.used.iter().zip(&clusters[1..]).filter(|(_, cluster)| **cluster == clusters[0]);
        let cluster = row.into_iter().chain(others.map(|(neighbor, _)| neighbor.row)).min();
        (cluster, graph.is_contested(0))
    }
}

impl<'c> Pass<'c> {
    /// The texts of the neighbours that agree, the nearest first.
    fn agreeing(&self) -> Vec<&'c str> {
        let agree = self.used.iter().zip(&self.passages).filter(|(used, _)| used.relation == Relation::Agrees);
        agree.map(|(_, passage)| passage.text()).collect()
    }
}

/// `normalise(w0 base + w1 context + w2 anti)`; without an opposing side the first two alone.
fn merge(weights: MergeWeights, base: &[f32], context: &[f32], anti: Option<&[f32]>) -> Vec<f32> {
    let mut merged: Vec<f32> = base.iter().zip(context).map(|(b, c)| weights.base * b + weights.context * c).collect();
    if let Some(anti) = anti {
        merged.iter_mut().zip(anti).for_each(|(m, a)| *m += weights.anti * a);
    }
    normalise(&mut merged);
    merged
}
