//! The reward of a position in a distillation: whether the student's feed-forward parts add to it what the teacher's add.
//!
//! ```text
//! c = cosine of the sums of a layer's routed and shared experts, student and teacher, each model on its own states
//! reward of the layer      1 where c > 0.95, -0.5 where c < 0.7, else 0
//! reward of the position   the mean over all layers with experts
//! ```
//! The loss of the position is multiplied by `1 + scale * reward`, so positions that these layers compute rightly count more.

use std::ops::ControlFlow;

use super::model::TrainModel;
use super::ops::loss::Target;
use super::outputs::for_each_layer;
use super::preference::loss_factor;
use super::targets::{Targets, TeacherHidden};
use crate::error::Result;

/// Cosines above this are rewarded, and those below the other one are punished.
const ALIKE: f64 = 0.95;
const APART: f64 = 0.7;

/// The reward of each position of the windows, from -0.5 to 1; 0 for models without experts. The teacher's states behind its last
/// layer, `[n, hidden]`, come with it.
fn expert_rewards(models: [&TrainModel<'_>; 2], windows: &[Vec<u32>]) -> Result<(Vec<f32>, Vec<f32>)> {
    let (hidden, n) = (models[1].files().config.hidden, windows.iter().map(Vec::len).sum::<usize>());
    let (mut sums, mut layers) = (vec![0.0; n], 0usize);
    let [_, last] = for_each_layer(models, windows, &mut |layer| {
        let [own, theirs] = &layer.output;
        let rows = own.chunks_exact(hidden).zip(theirs.chunks_exact(hidden));
        sums.iter_mut().zip(rows).for_each(|(sum, (own, theirs))| *sum += reward(cosine(own, theirs)));
        layers += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((sums.into_iter().map(|sum| sum / layers.max(1) as f32).collect(), last))
}

fn reward(cosine: f64) -> f32 {
    match cosine {
        c if c > ALIKE => 1.0,
        c if c < APART => -0.5,
        _ => 0.0,
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}

/// A teacher's predictions whose losses are multiplied by a factor of each position.
pub(super) struct Rewarded<'a> {
    targets: TeacherHidden<'a>,
    factors: Vec<f32>,
}

impl<'a> Rewarded<'a> {
    /// The predictions of `teacher` for windows, with rewards that count as much as `scale` says.
    pub(super) fn new([student, teacher]: [&TrainModel<'a>; 2], windows: &[Vec<u32>], scale: f32) -> Result<Self> {
        let (rewards, last) = expert_rewards([student, teacher], windows)?;
        let factors = rewards.into_iter().map(|reward| loss_factor(scale, reward)).collect();
        Ok(Self { targets: teacher.targets_behind(&last)?, factors })
    }
}

impl Targets for Rewarded<'_> {
    fn targets(&mut self, first: usize, n: usize, take: &mut dyn FnMut(usize, Target<'_>)) -> Result<()> {
        self.targets.targets(first, n, take)
    }

    fn factor(&self, position: usize) -> f32 {
        self.factors[position]
    }
}

#[cfg(test)]
mod tests {
    use tl_kernels::Pool;

    use super::*;
    use crate::train::mini::teacher_and_student;
    use crate::train::{Group, LossOptions, LossScale};

    #[test]
    fn cosines_decide_the_reward() {
        assert_eq!([0.96, 0.95, 0.8, 0.69, -1.0].map(reward), [1.0, 0.0, 0.0, -0.5, -0.5]);
        assert_eq!([cosine(&[1.0, 0.0], &[3.0, 0.0]), cosine(&[1.0, 0.0], &[0.0, 0.0])], [1.0, 0.0]);
    }

    /// A coarse student of the mini teacher, whose experts compute some positions rightly and others not.
    #[test]
    fn positions_that_the_experts_compute_rightly_count_more() {
        let (dir, pool) = (tempfile::tempdir().unwrap(), Pool::new(2).unwrap());
        let [teacher, student] = teacher_and_student(dir.path(), &pool);
        let model = |files| TrainModel::new(files, &[Group::Norms], &pool).unwrap();
        let (mut own, theirs) = (model(&student), model(&teacher));
        let windows: Vec<Vec<u32>> = (0..3u32).map(|w| (0..20).map(|t| 300 + 37 * w + 11 * t).collect()).collect();
        assert_eq!(expert_rewards([&theirs, &theirs], &windows).unwrap().0, [1.0; 60]);
        let (rewards, _) = expert_rewards([&own, &theirs], &windows).unwrap();
        assert!(rewards.iter().all(|r| (-0.5..=1.0).contains(r)) && rewards.iter().any(|r| *r < 0.5), "{rewards:?}");
        assert!(rewards.iter().any(|r| *r != rewards[0]), "{rewards:?}");

        let mut gradient = |scale: f32| -> Vec<f32> {
            own.weights.params.clear_gradients();
            let mut targets = Rewarded::new([&own, &theirs], &windows, scale).unwrap();
            // The teacher's predictions come from the pass that measured the rewards.
            assert!(targets.targets.hidden == theirs.hidden(&windows).unwrap());
            let factors = targets.factors.clone();
            assert!(factors.iter().zip(&rewards).all(|(factor, reward)| *factor == 1.0 + scale * reward));
            let loss = LossScale::of(LossOptions { kl: 1.0, ce: 0.0 }, &windows);
            own.loss_and_gradients(&windows, &mut targets, loss).unwrap();
            own.weights.params.list().iter().flat_map(|param| param.gradient.clone()).collect()
        };
        let [plain, rewarded, twice] = [0.0, 0.5, 1.0].map(&mut gradient);
        let largest = plain.iter().fold(0.0f32, |m, g| m.max(g.abs()));
        // The gradient is linear in the scale, and rewards change its direction, not only its length.
        let middle = plain.iter().zip(&twice).map(|(a, b)| 0.5 * (a + b));
        assert!(rewarded.iter().zip(middle).all(|(g, middle)| (g - middle).abs() < 1e-4 * largest));
        assert!(cosine(&plain, &twice) < 0.9999 && plain != twice, "{}", cosine(&plain, &twice));
    }
}
