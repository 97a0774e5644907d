//! Repair of the routers of a student: each is fitted on the student's own inputs to choose the experts that the teacher chooses.
//!
//! ```text
//! teacher stream ──► attention ──► norm ──► router ──► logits, scores, chosen experts = labels
//! student stream ──► attention ──► norm ──► rows ──► fit.rs ──► router ──► experts ──► next layer
//! ```
//! A router counts only if it chooses the teacher's experts more often on windows that are held out; else the old one stays. Each
//! layer is fitted on what the repaired layers before it compute.
//!
//! **Invariant:** only matrices of routers change, and no repair lowers the agreement of its layer on held-out windows.

mod contrastive;
mod fit;
mod method;
mod routed;

use super::error::TrainError;
use super::layer;
use super::model::{Pass, TrainModel};
use super::params::Group;
use super::parts::experts::{ROUTER, ROUTER_BIAS};
use super::write::check_routers;
use crate::error::Result;
use fit::Problem;
use routed::{Labels, Routed, split};

pub use contrastive::{ContrastiveOptions, ContrastiveTrainer, RoutingBatch};
pub use method::{RepairedRouter, RouterLabels, RouterMethod, RouterRepair, UnknownRouterMethod};

/// Windows that are computed at a time.
pub(super) const WINDOWS_AT_A_TIME: usize = 8;

/// Fits the routers of `student` on the windows `fit` and judges them on `held_out`. Each is announced as the event
/// `RouterValidated`.
///
/// # Errors
/// Weights that cannot be read, a router of a type in which it cannot be written, no held-out windows.
pub fn repair_routers(
    student: &mut TrainModel<'_>,
    teacher: &TrainModel<'_>,
    [fit, held_out]: [&[Vec<u32>]; 2],
    method: RouterMethod,
    labels: RouterLabels,
) -> Result<Vec<RepairedRouter>> {
    let Some(moe) = student.files().config.moe.clone() else { return Ok(Vec::new()) };
    check_routers(student.files())?;
    if held_out.is_empty() {
        return Err(TrainError::NoHeldOut { windows: fit.len(), needed: fit.len() + 1 }.into());
    }
    student.weights.add_group(Group::Router)?;
    let windows: Vec<Vec<u32>> = fit.iter().chain(held_out).cloned().collect();
    let n_fit = fit.iter().map(Vec::len).sum::<usize>();
    let hidden = student.files().config.hidden;
    let mut x = [student.embed(&windows)?, teacher.embed(&windows)?];
    let mut repaired = Vec::new();
    for index in 0..student.files().config.n_layers {
        x = [attended(student, &windows, index, &x[0])?, attended(teacher, &windows, index, &x[1])?];
        if student.files().config.is_moe(index) {
            let rows = normed(student, index, &x[0])?;
            let teacher_rows = normed(teacher, index, &x[1])?;
            let name = format!("blk.{index}.{ROUTER}");
            let bias = |model: &TrainModel<'_>| model.weights.optional_vector(&format!("blk.{index}.{ROUTER_BIAS}"));
            let (own, theirs) = (bias(student)?, bias(teacher)?);
            let pool = student.pool();
            let routed = |bias| Routed { pool, config: &moe.router, bias, hidden };
            let of_teacher = routed(theirs.as_deref()).route(&teacher.weights.matrix(&name, 0)?, &teacher_rows)?;
            let (of_fit, judged) = split(Labels::of(of_teacher), &moe.router, n_fit);
            let of_fit = match labels {
                RouterLabels::Teacher => of_fit,
                RouterLabels::Shuffled { seed } => of_fit.shuffled(&moe.router, seed),
            };
            let problem = Problem {
                routed: routed(own.as_deref()),
                start: student.weights.matrix(&name, 0)?,
                x: &rows[..n_fit * hidden],
                labels: of_fit,
                held_out: (&rows[n_fit * hidden..], judged.ids),
            };
            let (outcome, weight) = problem.solve(index, method)?;
            if outcome.is_kept {
                student.weights.set(&name, &weight);
            }
            tracing::info!(
                name: "RouterValidated",
                layer = index,
                method = method.name(),
                tokens = n_fit,
                agreement_before = outcome.agreement_before,
                agreement_after = outcome.agreement_after,
                is_kept = outcome.is_kept,
                "RouterValidated"
            );
            repaired.push(outcome);
        }
        x = [fed(student, &windows, index, &x[0])?, fed(teacher, &windows, index, &x[1])?];
    }
    Ok(repaired)
}

/// The residual stream behind the attention of a layer.
pub(super) fn attended(model: &TrainModel<'_>, windows: &[Vec<u32>], index: usize, x: &[f32]) -> Result<Vec<f32>> {
    by_windows(model, windows, x, &|pass, rows| layer::attend(model.context(pass, index), rows))
}

/// The residual stream behind a layer.
pub(super) fn fed(model: &TrainModel<'_>, windows: &[Vec<u32>], index: usize, mid: &[f32]) -> Result<Vec<f32>> {
    by_windows(model, windows, mid, &|pass, rows| layer::feed(model.context(pass, index), rows))
}

/// The inputs of a layer's router for the stream behind its attention.
pub(super) fn normed(model: &TrainModel<'_>, index: usize, mid: &[f32]) -> Result<Vec<f32>> {
    let pass = Pass::new(model.files(), &[])?;
    layer::norm_for_ffn(model.context(&pass, index), mid)
}

type Rows<'a> = dyn Fn(&Pass, &[f32]) -> Result<Vec<f32>> + 'a;

/// Some windows after the other through `f`, so that the activations of all are never in memory.
fn by_windows(model: &TrainModel<'_>, windows: &[Vec<u32>], x: &[f32], f: &Rows<'_>) -> Result<Vec<f32>> {
    let hidden = model.files().config.hidden;
    let (mut out, mut rest) = (Vec::with_capacity(x.len()), x);
    for windows in windows.chunks(WINDOWS_AT_A_TIME) {
        let (rows, tail) = rest.split_at(windows.iter().map(Vec::len).sum::<usize>() * hidden);
        out.extend(f(&Pass::new(model.files(), windows)?, rows)?);
        rest = tail;
    }
    Ok(out)
}
