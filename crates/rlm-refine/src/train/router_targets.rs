//! A router's term in the loss: the student's scores of experts are to come near the teacher's, whether its routers are trained or not.
//!
//! ```text
//! loss + factor mean over positions and layers with experts of D
//! sigmoid: D = sum_e t ln(t / s) + (1 - t) ln((1 - t) / (1 - s))      softmax: D = sum_e t ln(t / s)      both: d_z = s - t
//! ```
//! `s` are the student's scores on its own states, `t` the teacher's on its own. The gradient reaches routers and all layers before
//! them.

use moe_runtime::models::Gating;

use super::model::{Pass, TrainModel};
use super::ops::loss::Target;
use super::parts::experts::{Routing, route};
use super::repair::{attended, fed, normed};
use super::targets::{Targets, TeacherHidden};
use crate::error::Result;

/// Scores nearer to 0 or 1 count as so near.
const LEAST_SCORE: f64 = 1e-12;

/// A teacher's predictions, with its scores of the experts of all layers.
#[derive(Debug)]
pub struct RouterTargets<'a> {
    targets: TeacherHidden<'a>,
    /// By layer, `[n, n_experts]`; `None` for a layer without experts.
    scores: Vec<Option<Vec<f32>>>,
    /// By layer, `[n, top_k]`.
    ids: Vec<Option<Vec<u32>>>,
    factor: f32,
}

/// How far the routes of a student are from its teacher's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RouteDistance {
    /// The term of the loss at factor 1.
    pub divergence: f64,
    /// The share of positions and layers with the teacher's set of experts.
    pub agreement: f64,
}

/// Calls `take` with the routes of each layer; returns the states behind the last one, `[n, hidden]`.
fn for_each_router(
    model: &TrainModel<'_>,
    windows: &[Vec<u32>],
    take: &mut dyn FnMut(Option<Routing>),
) -> Result<Vec<f32>> {
    let (config, pass) = (&model.files().config, Pass::new(model.files(), &[])?);
    let mut x = model.embed(windows)?;
    for layer in 0..config.n_layers {
        let mid = attended(model, windows, layer, &x)?;
        let moe = config.moe.as_ref().filter(|_| config.is_moe(layer));
        let routing =
            moe.map(|moe| route(model.context(&pass, layer), moe, &normed(model, layer, &mid)?)).transpose()?;
        take(routing);
        x = fed(model, windows, layer, &mid)?;
    }
    Ok(x)
}

impl<'a> RouterTargets<'a> {
    /// The predictions and the scores of `teacher` for windows; the term counts `factor` times.
    ///
    /// # Errors
    /// Weights that cannot be read, a token that the model does not know.
    pub fn new(teacher: &TrainModel<'a>, windows: &[Vec<u32>], factor: f32) -> Result<Self> {
        let (mut scores, mut ids) = (Vec::new(), Vec::new());
        let last = for_each_router(teacher, windows, &mut |routing| {
            let (own_scores, own_ids) = routing.map(|routing| (routing.scores, routing.decision.ids)).unzip();
            scores.push(own_scores);
            ids.push(own_ids);
        })?;
        let layers = scores.iter().flatten().count().max(1);
        Ok(Self { targets: teacher.targets_behind(&last)?, scores, ids, factor: factor / layers as f32 })
    }

    /// The distance of a student's routes on the same windows.
    ///
    /// # Errors
    /// As [`RouterTargets::new`].
    pub fn distance(&self, student: &TrainModel<'_>, windows: &[Vec<u32>]) -> Result<RouteDistance> {
        let Some(moe) = &student.files().config.moe else {
            return Ok(RouteDistance { divergence: 0.0, agreement: 1.0 });
        };
        let (k, mut layer, mut divergence, mut same, mut sets) = (moe.router.top_k, 0, 0.0, 0usize, 0usize);
        for_each_router(student, windows, &mut |routing| {
            let of_teacher = self.scores[layer].as_ref().zip(self.ids[layer].as_ref());
            layer += 1;
            let (Some(routing), Some((scores, ids))) = (routing, of_teacher) else { return };
            let pairs = scores.iter().zip(&routing.scores);
            divergence += pairs.map(|(&t, &s)| distance(moe.router.gating, t, s)).sum::<f64>();
            let chosen = routing.decision.ids.chunks_exact(k).zip(ids.chunks_exact(k));
            same += chosen.filter(|(own, theirs)| own == theirs).count();
            sets += ids.len() / k;
        })?;
        let n = sets.max(1) as f64;
        Ok(RouteDistance { divergence: divergence / n, agreement: same as f64 / n })
    }
}

/// The share of one expert in the divergence of the scores `s` from `t`.
fn distance(gating: Gating, t: f32, s: f32) -> f64 {
    let inside = |v: f32| f64::from(v).clamp(LEAST_SCORE, 1.0 - LEAST_SCORE);
    let (t, s) = (inside(t), inside(s));
    let of = |t: f64, s: f64| t * (t / s).ln();
    match gating {
        Gating::Sigmoid => of(t, s) + of(1.0 - t, 1.0 - s),
        Gating::Softmax => of(t, s),
    }
}

impl Targets for RouterTargets<'_> {
    fn targets(&mut self, first: usize, n: usize, take: &mut dyn FnMut(usize, Target<'_>)) -> Result<()> {
        self.targets.targets(first, n, take)
    }

    fn scores(&self, layer: usize) -> Option<(&[f32], f32)> {
        Some((self.scores[layer].as_deref()?, self.factor))
    }
}

#[cfg(test)]
mod tests {
    use tl_kernels::{Pool, math};

    use super::*;
    use crate::train::batches::shuffled;
    use crate::train::mini::teacher_and_student;
    use crate::train::optim::{Optimizer, OptimizerOptions};
    use crate::train::{Group, LossOptions, LossScale};

    #[test]
    fn the_gradient_by_the_logits_is_the_difference_of_the_scores_for_either_gate() {
        let (z, wanted): ([f32; 3], [f32; 3]) = ([0.3, -0.7, 1.1], [-0.2, 0.9, 0.4]);
        for gating in [Gating::Sigmoid, Gating::Softmax] {
            let scores = |z: [f32; 3]| {
                let mut scores = z;
                match gating {
                    Gating::Sigmoid => math::sigmoid_in_place(&mut scores),
                    Gating::Softmax => math::softmax_in_place(&mut scores),
                }
                scores
            };
            let (t, s) = (scores(wanted), scores(z));
            let value = |z| t.iter().zip(scores(z)).map(|(&t, s)| distance(gating, t, s)).sum::<f64>();
            for i in 0..3 {
                let moved = |by: f32| {
                    let mut z = z;
                    z[i] += by;
                    value(z)
                };
                let difference = (moved(0.01) - moved(-0.01)) / 0.02;
                assert!((f64::from(s[i] - t[i]) - difference).abs() < 1e-4, "{i}: {difference}");
            }
        }
    }

    #[test]
    fn the_term_brings_routes_nearer_to_the_teachers_and_scores_of_other_tokens_do_not() {
        let (dir, pool) = (tempfile::tempdir().unwrap(), Pool::new(2).unwrap());
        let [teacher, student] = teacher_and_student(dir.path(), &pool);
        let teacher = TrainModel::new(&teacher, &[], &pool).unwrap();
        let windows: Vec<Vec<u32>> =
            (0..6).map(|w| (0..40).map(|i| ((w * 977 + i * 7919 + 13) % 2000) as u32).collect()).collect();
        let truth = RouterTargets::new(&teacher, &windows, 1.0).unwrap();
        let trained = |factor: f32, is_shuffled: bool| {
            let mut model = TrainModel::new(&student, &[Group::Norms, Group::Router], &pool).unwrap();
            let mut optimizer = Optimizer::new(OptimizerOptions::default(), &model.weights.params);
            let mut targets = RouterTargets::new(&teacher, &windows, factor).unwrap();
            if is_shuffled {
                for scores in targets.scores.iter_mut().flatten() {
                    let e = scores.len() / 240;
                    let order = shuffled(240, 3);
                    *scores = order.into_iter().flat_map(|t| scores[t * e..(t + 1) * e].to_vec()).collect();
                }
            }
            for _ in 0..6 {
                model.weights.params.clear_gradients();
                let scale = LossScale::of(LossOptions { kl: 1.0, ce: 0.0 }, &windows);
                model.loss_and_gradients(&windows, &mut targets, scale).unwrap();
                optimizer.step(&pool, &mut model.weights.params, &|_| 1e-3);
            }
            truth.distance(&model, &windows).unwrap().divergence
        };
        let [without, with, shuffled] = [(0.0, false), (3.0, false), (3.0, true)].map(|(f, is)| trained(f, is));
        assert!(
            with < 0.6 * without && shuffled > 0.9 * without,
            "{without} without, {with} with it, {shuffled} with scores of other tokens"
        );
    }
}
