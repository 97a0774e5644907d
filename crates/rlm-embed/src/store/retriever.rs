//! The search for the nearest vectors, as the recursion and the benchmark need it.

/// A row of a store and its similarity to the vector that was searched for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbor {
    /// Number of the row, in the order in which chunks were added; removed rows keep theirs.
    pub row: usize,
    /// The dot product: the cosine, for vectors of unit length.
    pub score: f32,
}

/// Finds the rows nearest to a vector. Implemented by [`FlatNeighborStore`](super::FlatNeighborStore) and, with the feature
/// `hnsw`, by `HnswNeighborStore`.
pub trait NeighborRetriever {
    /// At most `k` rows, the nearest first; equal scores in the order of their rows.
    ///
    /// # Panics
    /// If the query has another length than the rows.
    fn nearest(&self, query: &[f32], k: usize) -> Vec<Neighbor>;
}

impl<R: NeighborRetriever + ?Sized> NeighborRetriever for &R {
    fn nearest(&self, query: &[f32], k: usize) -> Vec<Neighbor> {
        (**self).nearest(query, k)
    }
}
