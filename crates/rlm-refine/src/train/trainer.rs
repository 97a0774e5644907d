//! The steps of a run, and its state between them.

use std::fs;
use std::path::PathBuf;

use moe_runtime::ModelFiles;
use serde::Serialize;
use tl_kernels::Pool;

use super::batches::Batches;
use super::error::TrainError;
use super::history::{History, Point};
use super::model::{LossOptions, LossScale, LossSums, TrainModel};
use super::optim::{Optimizer, OptimizerOptions, Schedule, clip};
use super::params::{Group, Kind, Param};
use super::repair::{RouterLabels, RouterMethod, RouterRepair, repair_routers};
use super::state;
use crate::error::Result;
use crate::pair::ensure_pair;

/// One of so many windows is held out, up to [`MAX_HELD_OUT`] of them.
const HELD_OUT_SHARE: usize = 24;
const MAX_HELD_OUT: usize = 16;

/// Most tokens that routers are fitted on.
const REPAIR_TOKENS: usize = 32 << 10;

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// The groups that are trained.
    pub groups: Vec<Group>,
    /// Steps of the run.
    pub steps: usize,
    /// Windows of a step.
    pub windows_per_step: usize,
    /// Windows that are in memory at a time; gradients are summed over a step.
    pub windows_at_a_time: usize,
    /// The highest rate of matrices; [`rate_factor`] has those of other groups.
    pub lr: f32,
    /// The rules of the optimiser.
    pub optimizer: OptimizerOptions,
    /// Most length of the gradient.
    pub clip: f32,
    /// The parts of the loss.
    pub loss: LossOptions,
    /// Seed of the order of windows.
    pub seed: u64,
    /// Steps between two states on the disk.
    pub checkpoint_steps: usize,
    /// Steps between two measurements on held-out windows.
    pub eval_steps: usize,
    /// For latents, the share of the run after which trits are hard.
    pub soft_share: f32,
    /// How routers are repaired behind the last step, if they are.
    pub repair: Option<RouterMethod>,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            groups: vec![Group::Scales, Group::Norms, Group::SharedExperts],
            steps: 400,
            windows_per_step: 8,
            windows_at_a_time: 8,
            lr: 1e-3,
            optimizer: OptimizerOptions::default(),
            clip: 1.0,
            loss: LossOptions { kl: 1.0, ce: 0.0 },
            seed: 0,
            checkpoint_steps: 50,
            eval_steps: 50,
            soft_share: 0.0,
            repair: None,
        }
    }
}

/// The rate of an entry over that of matrices: numbers near 1 take larger steps than weights of a matrix.
#[must_use]
pub fn rate_factor(group: Group, kind: Kind) -> f32 {
    match (group, kind) {
        (_, Kind::LogScales) | (Group::Norms, _) => 3.0,
        (_, Kind::Latents) => 5.0,
        (Group::Router, _) => 0.3,
        _ => 1.0,
    }
}

/// The news of a run after each step.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// The figures of the step.
    pub point: Point,
    /// All steps of the run.
    pub steps: usize,
}

/// A run: model, optimiser, windows and history.
#[derive(Debug)]
pub struct Trainer<'a> {
    /// The student with its trained weights.
    pub model: TrainModel<'a>,
    teacher: TrainModel<'a>,
    optimizer: Optimizer,
    options: TrainOptions,
    pool: &'a Pool,
    windows: Vec<Vec<u32>>,
    held_out: Vec<Vec<u32>>,
    /// The figures of all steps so far.
    pub history: History,
    last_good: usize,
}

impl<'a> Trainer<'a> {
    /// A run in front of its first step. Some of the windows are held out.
    ///
    /// # Errors
    /// Models that do not fit each other, no weights to train, weights that cannot be read, too few windows to hold one out where
    /// routers are to be repaired.
    pub fn new(
        [student, teacher]: [&'a ModelFiles; 2],
        windows: Vec<Vec<u32>>,
        options: TrainOptions,
        pool: &'a Pool,
    ) -> Result<Self> {
        let model = TrainModel::new(student, &options.groups, pool)?;
        ensure_pair(teacher, student)?;
        if model.weights.params.list().is_empty() && options.repair.is_none() {
            let names: Vec<&str> = options.groups.iter().map(|group| group.name()).collect();
            return Err(TrainError::NothingToTrain { groups: names.join(", ") }.into());
        }
        let optimizer = Optimizer::new(options.optimizer, &model.weights.params);
        let teacher = TrainModel::new(teacher, &[], pool)?;
        let (mut held_out, mut trained) = (Vec::new(), Vec::new());
        let every = HELD_OUT_SHARE.max(windows.len() / MAX_HELD_OUT);
        for (i, window) in windows.into_iter().enumerate() {
            if i % every == every / 2 { held_out.push(window) } else { trained.push(window) }
        }
        held_out.truncate(MAX_HELD_OUT);
        if options.repair.is_some() && held_out.is_empty() {
            return Err(TrainError::NoHeldOut { windows: trained.len(), needed: HELD_OUT_SHARE / 2 + 1 }.into());
        }
        let history = History::default();
        Ok(Self { model, teacher, optimizer, options, pool, windows: trained, held_out, history, last_good: 0 })
    }

    /// The number of steps that are done.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.optimizer.steps
    }

    /// The loss of windows, without gradients.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn measure(&self, windows: &[Vec<u32>]) -> Result<LossSums> {
        let mut sums = LossSums::default();
        for windows in windows.chunks(self.options.windows_at_a_time.max(1)) {
            sums.add(&self.model.loss(windows, &mut self.teacher.targets(windows)?, self.options.loss)?);
        }
        Ok(sums)
    }

    /// Takes the next step.
    ///
    /// # Errors
    /// Weights that cannot be read; [`TrainError::NotFinite`], behind which the run must not be saved.
    pub fn step(&mut self, state: &dyn Fn(usize) -> PathBuf) -> Result<StepReport> {
        let step = self.steps();
        let o = &self.options;
        if step == 0 && self.history.points.is_empty() && !self.held_out.is_empty() {
            let sums = self.measure(&self.held_out)?;
            let (loss, kl) = (sums.value(o.loss), sums.mean_kl());
            self.history.points.push(Point {
                step,
                tokens: 0,
                loss,
                kl,
                gradient: 0.0,
                lr: 0.0,
                held_out_kl: Some(kl),
            });
        }
        self.model.weights.hardness = hardness(o, step);
        let batches = Batches { windows: self.windows.len(), per_step: o.windows_per_step, seed: o.seed };
        let batch: Vec<Vec<u32>> = batches.of_step(step).into_iter().map(|i| self.windows[i].clone()).collect();
        self.model.weights.params.clear_gradients();
        let mut sums = LossSums::default();
        let scale = LossScale::of(o.loss, &batch);
        for part in batch.chunks(o.windows_at_a_time.max(1)) {
            let mut targets = self.teacher.targets(part)?;
            sums.add(&self.model.loss_and_gradients(part, &mut targets, scale)?);
        }
        let broken = self.model.weights.params.broken_gradient();
        if broken.is_some() || !sums.value(o.loss).is_finite() {
            let what = broken.map_or_else(|| "the loss".to_owned(), |param| format!("the gradient of {}", param.name));
            return Err(self.not_finite(what, broken, state).into());
        }
        let gradient = clip(&mut self.model.weights.params, o.clip);
        let share = Schedule { steps: o.steps, warmup: o.steps / 20, floor: 0.02 }.share(step);
        let rate = |param: &Param| o.lr * share * rate_factor(param.group, param.kind);
        self.optimizer.step(self.pool, &mut self.model.weights.params, &rate);
        let broken = self.model.weights.params.broken_value();
        if broken.is_some() {
            let what = broken.map_or_else(String::new, |param| format!("a value of {}", param.name));
            self.optimizer.steps = step;
            return Err(self.not_finite(what, broken, state).into());
        }
        let done = self.steps();
        self.model.weights.hardness = hardness(o, done);
        let is_measured = done.is_multiple_of(o.eval_steps.max(1)) || done == o.steps;
        let held_out_kl = (is_measured && !self.held_out.is_empty())
            .then(|| self.measure(&self.held_out).map(|sums| sums.mean_kl()))
            .transpose()?;
        let before = self.history.points.last().map_or(0, |point| point.tokens);
        let tokens = before + batch.iter().map(Vec::len).sum::<usize>() as u64;
        let lr = f64::from(o.lr * share);
        let point =
            Point { step: done, tokens, loss: sums.value(o.loss), kl: sums.mean_kl(), gradient, lr, held_out_kl };
        self.history.points.push(point.clone());
        Ok(StepReport { point, steps: o.steps })
    }

    /// The error of the step at work.
    fn not_finite(&self, what: String, broken: Option<&Param>, state: &dyn Fn(usize) -> PathBuf) -> TrainError {
        let group = broken.or(self.model.weights.params.list().first()).map_or("none", |param| param.group.name());
        let kept = match self.last_good {
            0 => "the student itself, as no state was written yet".to_owned(),
            step => format!("that of step {step}, in {}", state(step).display()),
        };
        TrainError::NotFinite { step: self.steps() + 1, what, group, kept }
    }

    /// Fits the routers behind the last step, on the windows that were trained on; `None` where they are to stay.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn repair(&mut self) -> Result<Option<RouterRepair>> {
        let Some(method) = self.options.repair else { return Ok(None) };
        let kl_before = self.measure(&self.held_out)?.mean_kl();
        let fit = fit_windows(&self.windows);
        let routers =
            repair_routers(&mut self.model, &self.teacher, [&fit, &self.held_out], method, RouterLabels::Teacher)?;
        let held_out_kl = [kl_before, self.measure(&self.held_out)?.mean_kl()];
        Ok(Some(RouterRepair { method, held_out_kl, routers }))
    }

    /// Whether the state is to be written after the steps done so far.
    #[must_use]
    pub fn is_at_checkpoint(&self) -> bool {
        self.steps().is_multiple_of(self.options.checkpoint_steps.max(1)) || self.steps() == self.options.steps
    }

    /// Writes the state, announces it as the event `DistillationCheckpoint`, and removes the one before the last.
    ///
    /// # Errors
    /// A disk that refuses.
    pub fn save(&mut self, state: &dyn Fn(usize) -> PathBuf) -> Result<()> {
        let step = self.steps();
        state::save(&state(step), &self.model.weights.params, &self.optimizer, &self.history)?;
        if let Some(old) = self.last_good.checked_sub(self.options.checkpoint_steps.max(1)) {
            // If it stays, the job removes it.
            let _ = fs::remove_file(state(old));
        }
        self.last_good = step;
        let point = self.history.points.last();
        tracing::info!(
            name: "DistillationCheckpoint",
            step,
            tokens = point.map_or(0, |point| point.tokens),
            loss = point.map_or(0.0, |point| point.loss),
            kl = point.map_or(0.0, |point| point.kl),
            held_out_kl = self.history.held_out_kl().unwrap_or(f64::NAN),
            "DistillationCheckpoint"
        );
        Ok(())
    }

    /// Bytes that states will take on the disk beyond those that are there: two are kept while a third is written.
    #[must_use]
    pub fn bytes_of_states(&self, state: &dyn Fn(usize) -> PathBuf) -> u64 {
        if self.steps() >= self.options.steps {
            return 0;
        }
        let left = 3usize.saturating_sub(state::saved(state).len());
        (left as u64).saturating_mul(state::bytes(&self.model.weights.params, &self.optimizer))
    }

    /// Continues from the last whole state of an earlier call; from the start without one.
    pub fn restore(&mut self, state: &dyn Fn(usize) -> PathBuf) {
        for step in state::saved(state) {
            let restored = state::restore(&state(step), &mut self.model.weights.params, &mut self.optimizer);
            if let Some(history) = restored {
                self.history = history;
                self.last_good = step;
                break;
            }
        }
        self.model.weights.hardness = hardness(&self.options, self.steps());
    }
}

/// Windows at even distances, of at most [`REPAIR_TOKENS`] tokens together. Their number is that of the first windows within the
/// limit.
fn fit_windows(windows: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let n = within_limit(windows.iter()).count();
    within_limit((0..n).map(|i| &windows[i * windows.len() / n])).cloned().collect()
}

fn within_limit<'a>(windows: impl Iterator<Item = &'a Vec<u32>>) -> impl Iterator<Item = &'a Vec<u32>> {
    let mut tokens = 0;
    windows.take_while(move |window| {
        tokens += window.len();
        tokens <= REPAIR_TOKENS
    })
}

/// The share of hard rounding in front of step `step`: it rises in a line over the soft share of the run.
fn hardness(options: &TrainOptions, step: usize) -> f32 {
    let soft = options.soft_share * options.steps as f32;
    if soft > 0.0 { (step as f32 / soft).min(1.0) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routers_are_fitted_on_windows_from_everywhere_within_the_limit() {
        let numbered = |lens: &[usize]| -> Vec<Vec<u32>> {
            lens.iter().zip(0..).map(|(&len, number)| vec![number; len]).collect()
        };
        let fit = fit_windows(&numbered(&[REPAIR_TOKENS / 4; 16]));
        assert_eq!(fit.iter().map(|window| window[0]).collect::<Vec<_>>(), [0, 4, 8, 12]);
        // The first windows are short: as many of all of them would be too many tokens.
        let mut lens = [REPAIR_TOKENS / 4; 16];
        lens[..4].fill(REPAIR_TOKENS / 8);
        let tokens = fit_windows(&numbered(&lens)).iter().map(Vec::len).sum::<usize>();
        assert!(tokens <= REPAIR_TOKENS && tokens > REPAIR_TOKENS / 2, "{tokens}");
        assert!(fit_windows(&[]).is_empty());
    }
}
