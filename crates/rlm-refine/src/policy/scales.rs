//! The scales of a ternary matrix, and the settings that its held-out tokens chose for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Settings by the matrix that they were chosen for.
pub type KnownSettings = BTreeMap<String, MatrixSettings>;

/// The name of a matrix in policies: its tensor's, with the number of the expert in a stack of experts.
pub(crate) fn policy_subject(tensor: &str, expert: Option<usize>) -> String {
    expert.map_or_else(|| tensor.to_owned(), |expert| format!("{tensor}#{expert}"))
}

/// Multiples of the least-squares scale that the search for a row starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScaleGrid {
    /// The scale of least squares alone.
    One,
    /// Five, from 0.8 to 1.2.
    Five,
}

impl ScaleGrid {
    pub(crate) fn multiples(self) -> &'static [f64] {
        match self {
            ScaleGrid::One => &[1.0],
            ScaleGrid::Five => &[0.8, 0.9, 1.0, 1.1, 1.2],
        }
    }
}

/// The settings of a matrix that its held-out tokens choose.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MatrixSettings {
    /// The share that sums over two different inputs lose.
    pub shrinkage: f64,
    /// The share of the teacher's inputs in the target: with 1 a row is to give what the teacher gives on its own inputs,
    /// with 0 what the teacher's row gives on the student's.
    pub target_mix: f64,
    /// The scales that rows are started from.
    pub scale_grid: ScaleGrid,
}

/// A run's knowledge about the scales of a ternary matrix.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TernaryScalePolicy {
    /// Mean of the scales of its blocks.
    pub scale_mean: f64,
    /// Standard deviation of the scales.
    pub scale_spread: f64,
    /// Share of trits that are 0.
    pub sparsity: f64,
    /// Cosine between the student's and the teacher's outputs on held-out tokens; `None` where there were none, or where one
    /// of the outputs is 0.
    pub output_cosine: Option<f64>,
    /// The settings that held-out tokens chose; `None` where there were too few of them to choose.
    pub settings: Option<MatrixSettings>,
}

impl TernaryScalePolicy {
    /// The policy of a matrix with these values, whole blocks of `block` in a row.
    pub(crate) fn of(
        values: &[f32],
        block: usize,
        output_cosine: Option<f64>,
        settings: Option<MatrixSettings>,
    ) -> Self {
        let blocks = values.chunks_exact(block);
        let n = blocks.len().max(1) as f64;
        let scale = |block: &[f32]| f64::from(block.iter().fold(0.0f32, |max, value| max.max(value.abs())));
        let (sum, sum2) = blocks.map(scale).fold((0.0, 0.0), |(sum, sum2), s| (sum + s, sum2 + s * s));
        let zeros = values.iter().filter(|value| **value == 0.0).count();
        Self {
            scale_mean: sum / n,
            scale_spread: (sum2 / n - (sum / n).powi(2)).max(0.0).sqrt(),
            sparsity: zeros as f64 / values.len().max(1) as f64,
            output_cosine,
            settings,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ternary_core::BLOCK;

    #[test]
    fn a_policy_sums_up_scales_and_zeros() {
        let mut values = vec![0.0f32; 2 * BLOCK];
        values[..64].fill(-0.25);
        values[BLOCK..][..192].fill(0.75);
        let policy = TernaryScalePolicy::of(&values, BLOCK, Some(0.9), None);
        assert_eq!((policy.scale_mean, policy.scale_spread, policy.sparsity), (0.5, 0.25, 0.5));
    }
}
