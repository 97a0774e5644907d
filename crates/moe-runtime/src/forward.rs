//! The forward pass: a model, its layers, and the parts of a layer.

pub(crate) mod batch;
pub(crate) mod embedding;
pub(crate) mod ends;
pub(crate) mod error;
pub(crate) mod experts;
pub(crate) mod ffn;
pub(crate) mod layer;
pub(crate) mod model;
pub(crate) mod mtp;
pub(crate) mod router;
pub(crate) mod rows;
pub(crate) mod taps;

pub use ends::ModelEnds;
pub use error::ForwardError;
pub use experts::{ExpertBank, ExpertScratch, ResidencyHook, RoutedBatch};
pub use ffn::{FfnBatch, FfnScratch, SwiGlu};
pub use layer::{Batch, DecoderLayer, FeedForward, LayerScratch};
pub use model::Products;
pub use router::{MoeRouter, RouterScratch, RoutingDecision};
pub use taps::{At, ExpertId, Taps};
