//! The vector of a text, and how the recursion came to it.

use crate::graph::Relation;

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The vector hardly moved in the last pass.
    Converged,
    /// The number of passes was used up.
    MaxIterations,
    /// The text lies in a cluster that another one contradicts, whatever the last pass moved.
    Contested,
}

impl StopReason {
    /// The name for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            StopReason::Converged => "converged",
            StopReason::MaxIterations => "max-iterations",
            StopReason::Contested => "contested",
        }
    }
}

/// A chunk that took part in the last pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UsedNeighbor {
    /// Its row in the store.
    pub row: usize,
    /// Its similarity to the vector of the pass.
    pub score: f32,
    /// Its relation to the text.
    pub relation: Relation,
}

impl UsedNeighbor {
    /// Whether the chunk contradicts the text.
    #[must_use]
    pub fn contradicts(&self) -> bool {
        matches!(self.relation, Relation::Contradicts(_))
    }
}

/// The result for one text.
#[derive(Clone, Debug, PartialEq)]
pub struct RlmEmbedding {
    /// The merged vector, of unit length.
    pub vector: Vec<f32>,
    /// The vector of the side that contradicts the text, in variant C where there is one.
    pub twin: Option<Vec<f32>>,
    /// Cosine between the vectors of the last two passes; 1 without a pass.
    pub confidence: f32,
    /// The chunks of the last pass, the nearest first.
    pub neighbors: Vec<UsedNeighbor>,
    /// The lowest row of the text's cluster among itself and its neighbours; `None` for a text outside of the store that
    /// agrees with no neighbour.
    pub cluster: Option<usize>,
    /// Why the loop ended.
    pub stop: StopReason,
    /// Passes that were made.
    pub iterations: usize,
}
