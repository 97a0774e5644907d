//! The inputs that every part of a layer needs.

use moe_runtime::models::ModelConfig;
use tl_kernels::Pool;

use crate::train::ops::rope::Turns;
use crate::train::params::PartGradient;
use crate::train::weights::Weights;

/// The fixed inputs of a pass through one layer.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) weights: &'a Weights<'a>,
    /// Lengths of the windows, whose tokens follow each other.
    pub(crate) windows: &'a [usize],
    /// The turns of the longest window's positions.
    pub(crate) turns: &'a Turns,
    pub(crate) layer: usize,
    /// The scores `[n, n_experts]` that the router is to come near, and the factor of their divergence at each position.
    pub(crate) scores: Option<(&'a [f32], f32)>,
}

impl<'a> Context<'a> {
    pub(crate) fn config(&self) -> &'a ModelConfig {
        &self.weights.files.config
    }

    /// The name of a tensor of the layer.
    pub(crate) fn name(&self, part: &str) -> String {
        format!("blk.{}.{part}", self.layer)
    }

    /// The position of each token in its window.
    pub(crate) fn positions(&self) -> impl Iterator<Item = usize> + 'a {
        self.windows.iter().flat_map(|&n| 0..n)
    }
}

/// The gradient of a layer's or a part's input, with the gradients of its weights.
#[derive(Debug, Default)]
pub(crate) struct Backward {
    /// The gradient of the input, `[n, width]`.
    pub(crate) d_x: Vec<f32>,
    pub(crate) parts: Vec<PartGradient>,
}
