//! The report of the calibrated quantiser, layer by layer and network by network.

use serde::{Deserialize, Serialize};

use crate::policy::{TernaryScalePolicy, policy_subject};

/// The errors of a ternary matrix with and without calibration.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MatrixReport {
    /// Squared error of its outputs on held-out tokens over their squared length, with least squares; `None` where no
    /// held-out token gives an output to compare with.
    pub error_before: Option<f64>,
    /// The same with the rows that were kept.
    pub error_after: Option<f64>,
    /// How many rows it has.
    pub rows: usize,
    /// How many of them beat least squares and were kept.
    pub rows_calibrated: usize,
    /// Its scales, and the settings that made its rows.
    pub policy: TernaryScalePolicy,
    /// Whether an earlier run chose the settings.
    pub known: bool,
}

/// The tokens and the matrices of a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkReport {
    /// Calibration tokens that it saw.
    pub tokens: usize,
    /// How many of these judged rows and fitted none.
    pub held_out_tokens: usize,
    /// Tokens of the layer that it did not see but was calibrated on, because it saw too few.
    pub pooled_tokens: usize,
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
    /// The ternary matrices of the attention, by name.
    pub attention: Vec<(String, MatrixReport)>,
    /// The networks with a ternary matrix: routed experts by number, then `shared` or `dense`.
    pub networks: Vec<(String, NetworkReport)>,
}

impl NetworkReport {
    /// Its ternary matrices with the part of the tensors' name that tells them apart.
    fn matrices(&self) -> impl Iterator<Item = (&'static str, MatrixReport)> {
        let all = [("gate", self.gate), ("up", self.up), ("down", self.down)];
        all.into_iter().filter_map(|(part, matrix)| Some((part, matrix?)))
    }
}

impl LayerReport {
    /// The reports of its ternary matrices.
    pub fn matrices(&self) -> impl Iterator<Item = MatrixReport> {
        let attention = self.attention.iter().map(|(_, matrix)| *matrix);
        attention.chain(self.networks.iter().flat_map(|(_, network)| network.matrices().map(|(_, matrix)| matrix)))
    }

    /// The policy of every ternary matrix under the name that policies know it by.
    pub fn policies(&self) -> impl Iterator<Item = (String, TernaryScalePolicy)> {
        let attention = self.attention.iter();
        let attention = attention.map(|(name, matrix)| (format!("blk.{}.{name}.weight", self.layer), matrix.policy));
        attention.chain(self.networks.iter().flat_map(|(name, network)| {
            network.matrices().map(|(part, matrix)| {
                let (suffix, expert) = match &**name {
                    "dense" => ("", None),
                    "shared" => ("_shexp", None),
                    number => ("_exps", number.parse().ok()),
                };
                let tensor = format!("blk.{}.ffn_{part}{suffix}.weight", self.layer);
                (policy_subject(&tensor, expert), matrix.policy)
            })
        }))
    }
}
