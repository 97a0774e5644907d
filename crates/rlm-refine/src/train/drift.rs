//! How far the outputs of a student's experts are from the teacher's.
//!
//! ```text
//! for each layer, and each expert e that the teacher's router chooses for a token t:
//!     relative error of e = sum over t of |y_student - y_teacher|^2 / sum over t of |y_teacher|^2
//! ```
//! `y` is the output of the whole feed-forward part for the token, each model on its own states, so that an expert answers for the
//! tokens that should reach it, whether they do or not.

use std::ops::ControlFlow;

use moe_runtime::ModelFiles;
use serde::{Deserialize, Serialize};
use tl_kernels::Pool;

use super::model::TrainModel;
use super::outputs::{LayerOutputs, for_each_layer};
use super::parts::experts::{ROUTER, ROUTER_BIAS, route_with};
use super::repair::normed;
use crate::error::Result;
use crate::pair::ensure_pair;

/// The drift of one routed expert.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpertDrift {
    /// Position of its layer in the model.
    pub layer: usize,
    /// Its number in the layer.
    pub expert: usize,
    /// Tokens that the teacher sends to it.
    pub tokens: usize,
    /// Squared error of the outputs of these tokens over their squared sum; 0 without tokens.
    pub relative_error: f64,
}

/// Measures the drift of all routed experts on some windows, in the order of layers and experts.
///
/// # Errors
/// Models that do not fit each other, weights that cannot be read.
pub fn expert_drift(
    [student, teacher]: [&ModelFiles; 2],
    windows: &[Vec<u32>],
    pool: &Pool,
) -> Result<Vec<ExpertDrift>> {
    ensure_pair(teacher, student)?;
    let Some(moe) = teacher.config.moe.clone() else { return Ok(Vec::new()) };
    let models = [TrainModel::new(student, &[], pool)?, TrainModel::new(teacher, &[], pool)?];
    let (hidden, config) = (teacher.config.hidden, &moe.router);
    let mut drifts = Vec::new();
    for_each_layer([&models[0], &models[1]], windows, &mut |LayerOutputs { layer, mid, output }| {
        let weights = &models[1].weights;
        let router = (
            weights.matrix(&format!("blk.{layer}.{ROUTER}"), 0)?,
            weights.optional_vector(&format!("blk.{layer}.{ROUTER_BIAS}"))?,
        );
        let ids = route_with(pool, config, router, &normed(&models[1], layer, &mid[1])?, hidden)?.decision.ids;
        let mut sums = vec![(0usize, 0.0f64, 0.0f64); config.n_experts];
        let rows = output[0].chunks_exact(hidden).zip(output[1].chunks_exact(hidden));
        for ((own, theirs), ids) in rows.zip(ids.chunks_exact(config.top_k)) {
            let error: f64 = own.iter().zip(theirs).map(|(s, t)| f64::from(s - t).powi(2)).sum();
            let whole: f64 = theirs.iter().map(|t| f64::from(*t).powi(2)).sum();
            for &id in ids {
                let sum = &mut sums[id as usize];
                *sum = (sum.0 + 1, sum.1 + error, sum.2 + whole);
            }
        }
        drifts.extend(sums.into_iter().enumerate().map(|(expert, (tokens, error, whole))| {
            let relative_error = if whole > 0.0 { error / whole } else { 0.0 };
            ExpertDrift { layer, expert, tokens, relative_error }
        }));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(drifts)
}
