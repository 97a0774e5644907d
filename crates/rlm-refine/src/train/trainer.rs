//! The steps of a run, and its state between them.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use moe_runtime::ModelFiles;
use moe_runtime::adapters::AdapterFile;
use serde::Serialize;
use tl_kernels::Pool;

use super::batches::Batches;
use super::descent::{Descended, Descent};
use super::error::TrainError;
use super::focus::Focus;
use super::history::{History, Point};
use super::model::{LossOptions, LossScale, LossSums, TrainModel};
use super::optim::{Optimizer, OptimizerOptions, Schedule};
use super::params::Group;
use super::repair::{RouterLabels, RouterMethod, RouterRepair, repair_routers};
use super::source::{Source, Teacher};
use super::state;
use super::windows::{LEAST_WINDOWS, fit_windows, split};
use crate::adapt::{EwcOptions, EwcRegularizer, GrpoOptions, Practice, PromptRewards};
use crate::error::Result;

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
    /// The highest rate of matrices; [`rate_factor`](super::rate_factor) has those of other groups.
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
    /// The penalty on moves of numbers that matter for protected texts, if there is one.
    pub ewc: Option<EwcOptions>,
    /// Rewards of sampled answers, on which steps are taken in place of the divergence, if there are any.
    pub grpo: Option<GrpoOptions>,
    /// How strongly rewards change the loss, 0 to 1: of an answer where recordings teach, of a position where a checkpoint does.
    pub reward_scale: f32,
    /// How often the divergence of the student's routes from the teacher's counts beside that of its predictions; 0 leaves it out.
    pub router_loss: f32,
    /// Experts that take larger steps, where some do.
    pub focus: Option<Focus>,
    /// Most resident memory, mapped pages included, if there is a limit.
    pub max_memory_bytes: Option<u64>,
    /// The adapter that the group of that name starts from.
    pub adapter: Option<Arc<AdapterFile>>,
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
            ewc: None,
            grpo: None,
            reward_scale: 0.0,
            router_loss: 0.0,
            focus: None,
            max_memory_bytes: None,
            adapter: None,
        }
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
    teacher: Teacher<'a>,
    optimizer: Optimizer,
    options: TrainOptions,
    pool: &'a Pool,
    windows: Vec<Vec<u32>>,
    held_out: Vec<Vec<u32>>,
    protection: Option<EwcRegularizer>,
    practice: Option<Practice<'a>>,
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
    pub fn new(student: &'a ModelFiles, source: &Source<'a>, options: TrainOptions, pool: &'a Pool) -> Result<Self> {
        let mut model = TrainModel::new(student, &options.groups, pool)?;
        model.weights.hardness = hardness(&options, 0);
        if let Some(adapter) = &options.adapter {
            model.weights.add_adapter(adapter, options.seed)?;
        }
        let teacher = Teacher::new(source, student, options.reward_scale, pool)?.with_router_loss(options.router_loss);
        if model.weights.params.list().is_empty() && options.repair.is_none() {
            let names: Vec<&str> = options.groups.iter().map(|group| group.name()).collect();
            return Err(TrainError::NothingToTrain { groups: names.join(", ") }.into());
        }
        let optimizer = Optimizer::new(options.optimizer, &model.weights.params);
        let [trained, held_out] = split(source.windows());
        if options.repair.is_some() && held_out.is_empty() {
            return Err(TrainError::NoHeldOut { windows: trained.len(), needed: LEAST_WINDOWS }.into());
        }
        let history = History::default();
        let (windows, protection, practice, last_good) = (trained, None, None, 0);
        Ok(Self {
            model,
            teacher,
            optimizer,
            options,
            pool,
            windows,
            held_out,
            protection,
            practice,
            history,
            last_good,
        })
    }

    /// Keeps in memory what the plan of the run says.
    pub(super) fn hold(&mut self, keeps_activations: bool, keeps_pages: bool) {
        self.model.keeps_activations = keeps_activations;
        self.model.weights.drops_pages = !keeps_pages;
        self.teacher.drop_pages(!keeps_pages);
    }

    /// Measures how much each trained number matters for `windows`, which later steps are to leave as they are; to be called in
    /// front of [`Trainer::restore`]. Windows count as protected only where the options have a penalty.
    ///
    /// # Errors
    /// Weights that cannot be read; [`TrainError::FisherNotFinite`].
    pub fn protect(&mut self, windows: &[Vec<u32>]) -> Result<()> {
        let Some(options) = self.options.ewc else { return Ok(()) };
        self.model.weights.hardness = hardness(&self.options, 0);
        let mut protection = EwcRegularizer::new(options, &self.model.weights.params);
        protection.add_phase(&mut self.model, windows)?;
        self.protection = Some(protection);
        Ok(())
    }

    /// The penalty of the run and what it measured; `None` without protected windows.
    #[must_use]
    pub fn protection(&self) -> Option<&EwcRegularizer> {
        self.protection.as_ref()
    }

    /// Takes steps on rewards from now on, and returns the rewards of the student as it is on the prompts that are held out; to be
    /// called in front of [`Trainer::restore`].
    pub(super) fn practise(&mut self, practice: Practice<'a>) -> Result<PromptRewards> {
        let rewards = practice.held_out(&self.model)?;
        self.practice = Some(practice);
        Ok(rewards)
    }

    /// The rewards of the student as it is; `None` where no answers are rewarded.
    pub(super) fn rewards(&self) -> Result<Option<PromptRewards>> {
        self.practice.as_ref().map(|practice| practice.held_out(&self.model)).transpose()
    }

    /// The number of steps that are done.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.history.points.last().map_or(0, |point| point.step)
    }

    /// The loss of windows, without gradients.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn measure(&self, windows: &[Vec<u32>]) -> Result<LossSums> {
        let mut sums = LossSums::default();
        for windows in windows.chunks(self.options.windows_at_a_time.max(1)) {
            sums.add(&self.model.loss(windows, &mut *self.teacher.targets(windows)?, self.options.loss)?);
        }
        Ok(sums)
    }

    /// Takes the next step.
    ///
    /// # Errors
    /// Weights that cannot be read; [`TrainError::NotFinite`], behind which the run must not be saved.
    pub fn step(&mut self, state: &dyn Fn(usize) -> PathBuf) -> Result<StepReport> {
        if self.history.points.is_empty() && !self.held_out.is_empty() {
            let sums = self.measure(&self.held_out)?;
            let (loss, kl) = (sums.value(self.options.loss), sums.mean_kl());
            self.history.points.push(Point { loss, kl, held_out_kl: Some(kl), ..Point::default() });
        }
        let mut point = match self.practice.take() {
            None => self.step_towards_teacher(state)?,
            Some(practice) => {
                let point = self.step_on_rewards(&practice, state);
                self.practice = Some(practice);
                point?
            }
        };
        let (o, done) = (&self.options, point.step);
        self.model.weights.hardness = hardness(o, done);
        let is_measured = done.is_multiple_of(o.eval_steps.max(1)) || done == o.steps;
        if is_measured && !self.held_out.is_empty() {
            point.held_out_kl = Some(self.measure(&self.held_out)?.mean_kl());
        }
        self.history.points.push(point.clone());
        Ok(StepReport { point, steps: self.options.steps })
    }

    /// A step on windows of the texts.
    fn step_towards_teacher(&mut self, state: &dyn Fn(usize) -> PathBuf) -> Result<Point> {
        let step = self.steps();
        let o = &self.options;
        let batches = Batches { windows: self.windows.len(), per_step: o.windows_per_step, seed: o.seed };
        let batch: Vec<Vec<u32>> = batches.of_step(step).into_iter().map(|i| self.windows[i].clone()).collect();
        self.model.weights.params.clear_gradients();
        let mut sums = LossSums::default();
        let scale = LossScale::of(o.loss, &batch).with_positions(o.loss, self.teacher.positions(&batch));
        for part in batch.chunks(o.windows_at_a_time.max(1)) {
            let mut targets = self.teacher.rewarded(&self.model, part)?;
            sums.add(&self.model.loss_and_gradients(part, &mut *targets, scale)?);
        }
        let (loss, kl) = (sums.value(o.loss), sums.mean_kl());
        let (model, mut descent) = self.descent(state);
        let Descended { gradient, ewc } = descent.apply(&mut model.weights.params, loss)?;
        let before = self.history.points.last().map_or(0, |point| point.tokens);
        let tokens = before + batch.iter().map(Vec::len).sum::<usize>() as u64;
        let lr = f64::from(self.options.lr * self.rate_share());
        Ok(Point { step: step + 1, tokens, loss, kl, gradient, lr, ewc, ..Point::default() })
    }

    /// A step on the rewards of sampled answers.
    fn step_on_rewards(&mut self, practice: &Practice<'_>, state: &dyn Fn(usize) -> PathBuf) -> Result<Point> {
        let (step, lr) = (self.steps(), f64::from(self.options.lr * self.rate_share()));
        let last = self.history.points.last();
        let (before, beta) = (last.map_or(0, |point| point.tokens), last.and_then(|point| point.grpo).map(|g| g.beta));
        let (model, mut descent) = self.descent(state);
        let mut done = Descended::default();
        let figures = practice.update(model, step, beta, &mut |params, loss| {
            done = descent.apply(params, loss)?;
            Ok(done.gradient)
        })?;
        let (Descended { gradient, ewc }, tokens) = (done, before + figures.tokens);
        Ok(Point { step: step + 1, tokens, gradient, lr, ewc, grpo: Some(figures), ..Point::default() })
    }

    /// The share of the highest rate in the next step.
    fn rate_share(&self) -> f32 {
        let steps = self.options.steps;
        Schedule { steps, warmup: steps / 20, floor: 0.02 }.share(self.steps())
    }

    /// The model, and what turns its gradients into the next step.
    fn descent(&mut self, state: &dyn Fn(usize) -> PathBuf) -> (&mut TrainModel<'a>, Descent<'_>) {
        let kept = match self.last_good {
            0 => "the student itself, as no state was written yet".to_owned(),
            step => format!("that of step {step}, in {}", state(step).display()),
        };
        let (lr, step) = (self.options.lr * self.rate_share(), self.steps() + 1);
        let descent = Descent {
            optimizer: &mut self.optimizer,
            protection: self.protection.as_ref(),
            focus: self.options.focus.as_ref(),
            pool: self.pool,
            lr,
            clip: self.options.clip,
            step,
            kept,
        };
        (&mut self.model, descent)
    }

    /// Fits the routers behind the last step, on the windows that were trained on; `None` where they are to stay.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn repair(&mut self) -> Result<Option<RouterRepair>> {
        let Some(method) = self.options.repair else { return Ok(None) };
        let kl_before = self.measure(&self.held_out)?.mean_kl();
        let fit = fit_windows(&self.windows);
        let routers = repair_routers(
            &mut self.model,
            self.teacher.checkpoint()?,
            [&fit, &self.held_out],
            method,
            RouterLabels::Teacher,
        )?;
        let held_out_kl = [kl_before, self.measure(&self.held_out)?.mean_kl()];
        Ok(Some(RouterRepair { method, held_out_kl, routers }))
    }

    /// Whether the state is to be written after the steps done so far.
    #[must_use]
    pub fn is_at_checkpoint(&self) -> bool {
        self.steps().is_multiple_of(self.options.checkpoint_steps.max(1)) || self.steps() == self.options.steps
    }

    /// Writes the state, announces it as the event `DistillationCheckpoint`, and removes the one before the last. A step on rewards
    /// has neither loss nor divergence, so the event has none then.
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
        let towards_teacher = point.filter(|point| point.grpo.is_none());
        tracing::info!(
            name: "DistillationCheckpoint",
            step,
            tokens = point.map_or(0, |point| point.tokens),
            loss = towards_teacher.map(|point| point.loss),
            kl = towards_teacher.map(|point| point.kl),
            held_out_kl = self.history.held_out_kl(),
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

    /// Continues from the last whole state of an earlier call; from the start without one. To be called in front of the first step.
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

/// The share of hard rounding in front of step `step`: it rises in a line over the soft share of the run.
fn hardness(options: &TrainOptions, step: usize) -> f32 {
    let soft = options.soft_share * options.steps as f32;
    if soft > 0.0 { (step as f32 / soft).min(1.0) } else { 1.0 }
}
