//! The feed-forward parts of a student and its teacher on the same windows, layer by layer, each model on its own states.

use std::ops::ControlFlow;

use super::model::TrainModel;
use super::repair::{attended, fed};
use crate::error::Result;

/// One layer of both models, the student first.
pub(super) struct LayerOutputs {
    /// Position of the layer in the model.
    pub(super) layer: usize,
    /// The residual stream behind the attention, `[n, hidden]`.
    pub(super) mid: [Vec<f32>; 2],
    /// The sum that the feed-forward part, shared experts included, adds to it, `[n, hidden]`.
    pub(super) output: [Vec<f32>; 2],
}

/// Calls `take` with each layer that has experts, in order, until it breaks off. Returns the residual streams behind the last layer that
/// was computed, `[n, hidden]` each.
pub(super) fn for_each_layer(
    [student, teacher]: [&TrainModel<'_>; 2],
    windows: &[Vec<u32>],
    take: &mut dyn FnMut(LayerOutputs) -> Result<ControlFlow<()>>,
) -> Result<[Vec<f32>; 2]> {
    let config = &teacher.files().config;
    let mut x = [student.embed(windows)?, teacher.embed(windows)?];
    for layer in 0..config.n_layers {
        let mid = [attended(student, windows, layer, &x[0])?, attended(teacher, windows, layer, &x[1])?];
        x = [fed(student, windows, layer, &mid[0])?, fed(teacher, windows, layer, &mid[1])?];
        if config.is_moe(layer) {
            let added = |i: usize| x[i].iter().zip(&mid[i]).map(|(x, mid)| x - mid).collect();
            let output = [added(0), added(1)];
            if take(LayerOutputs { layer, mid, output })?.is_break() {
                break;
            }
        }
    }
    Ok(x)
}
