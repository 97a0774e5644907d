//! Approximate search for large corpora: a hierarchical graph of neighbours (Malkov and Yashunin 2016) over the rows that were
//! there when it was built, and exact search over the rows that came later.
//!
//! **Invariant:** a removed chunk is never found, and a search that the graph cannot fill is answered exactly.

use instant_distance::{Builder, HnswMap, Point, Search};
use tl_kernels::dense::dot_f32;

use super::flat::FlatNeighborStore;
use super::retriever::{Neighbor, NeighborRetriever};
use super::top::Top;

/// Candidates that a search keeps, and that the construction keeps.
const EF_SEARCH: usize = 128;
const EF_CONSTRUCTION: usize = 128;
const SEED: u64 = 18;

/// A graph over the rows of a store.
pub struct HnswNeighborStore {
    flat: FlatNeighborStore,
    graph: HnswMap<Row, usize>,
    /// Rows below this one are in the graph.
    built: usize,
}

#[derive(Clone)]
struct Row(Vec<f32>);

impl Point for Row {
    fn distance(&self, other: &Self) -> f32 {
        1.0 - dot_f32(&self.0, &other.0)
    }
}

impl HnswNeighborStore {
    /// Builds the graph of all chunks of `flat`; the same rows give the same graph.
    #[must_use]
    pub fn build(flat: FlatNeighborStore) -> HnswNeighborStore {
        let (points, rows) = flat.live_rows().map(|row| (Row(flat.vector(row).to_vec()), row)).unzip();
        let builder = Builder::default().ef_search(EF_SEARCH).ef_construction(EF_CONSTRUCTION).seed(SEED);
        HnswNeighborStore { graph: builder.build(points, rows), built: flat.rows(), flat }
    }

    /// The store behind the graph.
    #[must_use]
    pub fn flat(&self) -> &FlatNeighborStore {
        &self.flat
    }

    /// The store behind the graph, for changes; they take effect at once.
    pub fn flat_mut(&mut self) -> &mut FlatNeighborStore {
        &mut self.flat
    }

    /// Number of chunks that were added since the graph was built and not removed, which are searched exactly.
    #[must_use]
    pub fn tail(&self) -> usize {
        (self.built..self.flat.rows()).filter(|&row| self.flat.is_live(row)).count()
    }
}

impl NeighborRetriever for HnswNeighborStore {
    fn nearest(&self, query: &[f32], k: usize) -> Vec<Neighbor> {
        let mut top = Top::new(k);
        let mut search = Search::default();
        let mut found = 0;
        for item in self.graph.search(&Row(query.to_vec()), &mut search) {
            if self.flat.is_live(*item.value) {
                top.push(*item.value, 1.0 - item.distance);
                found += 1;
            }
        }
        if found < k.min(self.flat.len().saturating_sub(self.tail())) {
            return self.flat.nearest(query, k);
        }
        for neighbor in self.flat.nearest_from(query, k, self.built).into_iter().flatten() {
            top.push(neighbor.row, neighbor.score);
        }
        top.into_sorted()
    }
}

impl std::fmt::Debug for HnswNeighborStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HnswNeighborStore")
            .field("built", &self.built)
            .field("flat", &self.flat)
            .finish_non_exhaustive()
    }
}
