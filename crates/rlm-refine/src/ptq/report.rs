//! The report of the calibrated quantiser, layer by layer and network by network.

use serde::{Deserialize, Serialize};

/// The errors of a ternary matrix with and without calibration.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MatrixReport {
    /// Squared error of its outputs on held-out tokens over their squared length, with least squares.
    pub error_before: f64,
    /// The same with the rows that were kept.
    pub error_after: f64,
    /// How many rows it has.
    pub rows: usize,
    /// How many of them beat least squares and were kept.
    pub rows_calibrated: usize,
}

/// The tokens and the matrices of a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkReport {
    /// Calibration tokens that it saw.
    pub tokens: usize,
    /// How many of these judged rows and fitted none.
    pub held_out_tokens: usize,
    /// Its gate, where that is ternary.
    pub gate: Option<MatrixReport>,
    /// Its up projection, where that is ternary.
    pub up: Option<MatrixReport>,
    /// Its down projection, where that is ternary.
    pub down: Option<MatrixReport>,
}

/// A layer of experts: how far the student's choice of experts is from the teacher's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoutingReport {
    /// Share of tokens with exactly the teacher's experts.
    pub exact: f64,
    /// Mean share of the teacher's experts that the student chose too.
    pub overlap: f64,
    /// Mean share of the teacher's weight that lies on the student's experts.
    pub mass: f64,
}

/// The networks of a layer, and the distance between the streams behind it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Its index in the model.
    pub layer: usize,
    /// Length of the difference between the two residual streams behind the layer over the length of the teacher's.
    pub drift: f64,
    /// Cosine between the two.
    pub cosine: f64,
    /// The routing; `None` for a dense layer.
    pub routing: Option<RoutingReport>,
    /// The networks with a ternary matrix: routed experts by number, then `shared` or `dense`.
    pub networks: Vec<(String, NetworkReport)>,
}
