//! The choices of the recursion: variant, weights, number of neighbours, when to stop.

use crate::graph::RelationRules;

/// For which use a text is embedded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// A: the text is a query. Its context is the text of the chunks found for it.
    Query,
    /// B: the text is a chunk to be indexed. Its context is the words that several agreeing neighbours share.
    Corpus,
    /// C: as B, with a second vector for the side that contradicts the text.
    Twin,
}

/// The weights of the three vectors that are merged.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the module `recursion` names the three vectors")]
pub struct MergeWeights {
    pub base: f32,
    pub context: f32,
    /// Negative weights move a vector away from its opposing side, positive ones towards it.
    pub anti: f32,
}

impl MergeWeights {
    /// The weights 0.6, 0.3, +0.1: the last one moves a vector towards what contradicts it.
    pub const TOWARDS_ANTI: MergeWeights = MergeWeights { base: 0.6, context: 0.3, anti: 0.1 };
}

/// All choices of a recursion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecursionConfig {
    /// The use of the vector.
    pub variant: Variant,
    /// The weights of the merge.
    pub weights: MergeWeights,
    /// Neighbours that are read in an iteration.
    pub neighbors: usize,
    /// Most passes of the loop; 0 is the encoder alone.
    pub max_iterations: usize,
    /// The loop ends when the cosine between two passes is at least this.
    pub converged: f32,
    /// How texts are compared.
    pub rules: RelationRules,
}

impl RecursionConfig {
    /// Two passes with five neighbours, and the weights that were fitted for all-MiniLM-L6-v2 (the rows `weights` of
    /// `benches/record/x86_64/2026-11-30-embedder.csv`; its rows `shipped` are the figures of this configuration).
    #[must_use]
    pub fn new(variant: Variant) -> RecursionConfig {
        let (base, context, anti) = match variant {
            Variant::Query => (0.8, 0.2, 0.5),
            Variant::Corpus => (1.0, 0.0, -0.2),
            Variant::Twin => (0.8, 0.2, -0.35),
        };
        RecursionConfig {
            variant,
            weights: MergeWeights { base, context, anti },
            neighbors: 5,
            max_iterations: 2,
            converged: 0.995,
            rules: RelationRules::default(),
        }
    }

    /// For a Raspberry Pi 5: two passes with three neighbours.
    #[must_use]
    pub fn pi5(variant: Variant) -> RecursionConfig {
        RecursionConfig { neighbors: 3, ..RecursionConfig::new(variant) }
    }

    /// For streams on a Raspberry Pi 5: one pass with three neighbours.
    #[must_use]
    pub fn pi5_streaming(variant: Variant) -> RecursionConfig {
        RecursionConfig { max_iterations: 1, ..RecursionConfig::pi5(variant) }
    }
}
