//! A model in training: from windows of tokens to a loss and the gradients of what is trained.
//!
//! **Invariant:** logits are computed for some tokens at a time, so memory does not grow with tokens times vocabulary.

use moe_runtime::ModelFiles;
use tl_kernels::Pool;

use super::layer::{self, Saved};
use super::ops::loss::{Action, Target, cross_entropy, divergence};
use super::ops::rope::Turns;
use super::params::{Gradients, Group};
use super::parts::context::Context;
use super::parts::linear::{Linear, Norm};
use super::targets::{Targets, TeacherHidden};
use super::weights::Weights;
use crate::error::Result;

/// Tokens whose logits are in memory at a time.
pub(super) const LOGIT_TOKENS: usize = 256;

/// A model whose passes are computed in F32.
#[derive(Debug)]
pub struct TrainModel<'a> {
    /// The weights that it multiplies with.
    pub weights: Weights<'a>,
    /// Whether a pass keeps the activations of all layers for its backward pass, which computes them again otherwise. Gradients have
    /// the same bits either way.
    pub keeps_activations: bool,
    pool: &'a Pool,
}

/// The parts of a loss.
#[derive(Clone, Copy, Debug)]
pub struct LossOptions {
    /// Factor of the divergence from the teacher.
    pub kl: f32,
    /// Factor of the cross entropy with the token that follows; 0 leaves it out.
    pub ce: f32,
}

/// The factors of single positions: those of a loss over the numbers of positions and labels of all windows of a step.
#[derive(Clone, Copy, Debug)]
pub struct LossScale {
    kl: f32,
    ce: f32,
}

impl LossScale {
    /// The factors for a step on `windows`, however they are cut into passes.
    #[must_use]
    pub fn of(options: LossOptions, windows: &[Vec<u32>]) -> Self {
        let positions = windows.iter().map(Vec::len).sum::<usize>();
        let labels = windows.iter().map(|window| window.len().saturating_sub(1)).sum::<usize>();
        Self { kl: options.kl / positions.max(1) as f32, ce: options.ce / labels.max(1) as f32 }
    }

    /// The factors of the mean over `n` positions that have targets.
    #[must_use]
    pub fn of_positions(n: usize) -> Self {
        Self { kl: 1.0 / n.max(1) as f32, ce: 0.0 }
    }

    /// The same for a teacher that predicts only so many of the positions.
    #[must_use]
    pub fn with_positions(self, options: LossOptions, positions: usize) -> Self {
        Self { kl: options.kl / positions.max(1) as f32, ..self }
    }

    fn times(self, factor: f32) -> Self {
        Self { kl: self.kl * factor, ce: self.ce * factor }
    }
}

/// The sums of a loss over tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSums {
    /// Divergence from the teacher, in nats.
    pub kl: f64,
    /// Positions that it is summed over.
    pub positions: usize,
    /// Cross entropy with the token that follows, in nats, where it is a part of the loss.
    pub ce: f64,
    /// Positions that it is summed over: those that have a token behind them.
    pub labels: usize,
}

impl LossSums {
    /// The loss that is minimised: means, times their factors.
    #[must_use]
    pub fn value(&self, options: LossOptions) -> f64 {
        f64::from(options.kl) * self.mean_kl() + f64::from(options.ce) * self.ce / self.labels.max(1) as f64
    }

    /// Adds the sums of other tokens.
    pub fn add(&mut self, other: &LossSums) {
        self.kl += other.kl;
        self.positions += other.positions;
        self.ce += other.ce;
        self.labels += other.labels;
    }

    /// Mean divergence per position.
    #[must_use]
    pub fn mean_kl(&self) -> f64 {
        self.kl / self.positions.max(1) as f64
    }
}

/// The windows of a pass: their lengths, and the turns of the longest one's positions.
pub(super) struct Pass {
    lengths: Vec<usize>,
    turns: Turns,
}

impl Pass {
    pub(super) fn new(files: &ModelFiles, windows: &[Vec<u32>]) -> Result<Self> {
        let lengths: Vec<usize> = windows.iter().map(Vec::len).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        Ok(Self { turns: Turns::new(&files.config.rotation()?, longest), lengths })
    }
}

/// The states of a forward pass that its backward pass starts from.
struct Trace {
    saved: Vec<Saved>,
    /// Behind the last layer, and behind the last norm.
    last: Vec<f32>,
    normed: Vec<f32>,
}

impl<'a> TrainModel<'a> {
    /// A model over a file, of which tensors of `groups` are trained.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn new(files: &'a ModelFiles, groups: &[Group], pool: &'a Pool) -> Result<Self> {
        Ok(Self { weights: Weights::new(files, groups)?, keeps_activations: false, pool })
    }

    /// The file that frozen weights are read from.
    #[must_use]
    pub fn files(&self) -> &'a ModelFiles {
        self.weights.files
    }

    pub(super) fn pool(&self) -> &'a Pool {
        self.pool
    }

    /// The rows of the embedding for all tokens, `[n, hidden]`.
    pub(super) fn embed(&self, windows: &[Vec<u32>]) -> Result<Vec<f32>> {
        let mut x = Vec::new();
        for &token in windows.iter().flatten() {
            x.extend(self.weights.row("token_embd.weight", token as usize)?);
        }
        Ok(x)
    }

    fn trace(&self, windows: &[Vec<u32>], keep: bool) -> Result<Trace> {
        let (mut x, pass) = (self.embed(windows)?, Pass::new(self.files(), windows)?);
        let mut saved = Vec::new();
        for layer in 0..self.files().config.n_layers {
            let (out, inputs) = layer::forward(self.context(&pass, layer), x, keep && self.keeps_activations)?;
            if keep {
                saved.push(inputs);
            }
            x = out;
        }
        let context = self.context(&pass, 0);
        let normed = self.final_norm(context)?.forward(context, &x);
        Ok(Trace { saved, last: x, normed })
    }

    pub(super) fn context<'c>(&'c self, pass: &'c Pass, layer: usize) -> Context<'c> {
        Context {
            pool: self.pool,
            weights: &self.weights,
            windows: &pass.lengths,
            turns: &pass.turns,
            layer,
            scores: None,
        }
    }

    fn final_norm(&self, context: Context<'_>) -> Result<Norm> {
        Norm::named(context, "output_norm.weight".to_owned(), self.files().config.norm_eps)
    }

    fn head_name(&self) -> &'static str {
        if self.weights.has("output.weight") { "output.weight" } else { "token_embd.weight" }
    }

    /// The states behind the last norm, `[n, hidden]`.
    ///
    /// # Errors
    /// Weights that cannot be read, a token that the model does not know.
    pub fn hidden(&self, windows: &[Vec<u32>]) -> Result<Vec<f32>> {
        Ok(self.trace(windows, false)?.normed)
    }

    /// The model as the teacher of a student: its predictions for windows.
    ///
    /// # Errors
    /// As [`TrainModel::hidden`].
    pub fn targets(&self, windows: &[Vec<u32>]) -> Result<TeacherHidden<'a>> {
        self.targets_of(self.hidden(windows)?)
    }

    /// The same from the states behind the last layer, `[n, hidden]`.
    pub(super) fn targets_behind(&self, last: &[f32]) -> Result<TeacherHidden<'a>> {
        let pass = Pass::new(self.files(), &[])?;
        let context = self.context(&pass, 0);
        self.targets_of(self.final_norm(context)?.forward(context, last))
    }

    fn targets_of(&self, hidden: Vec<f32>) -> Result<TeacherHidden<'a>> {
        let (width, head) = (self.files().config.hidden, self.weights.matrix(self.head_name(), 0)?);
        let rows = head.len() / width;
        let head = tl_kernels::Linear::from_f32(rows, width, head).map_err(moe_runtime::Error::from)?;
        Ok(TeacherHidden { pool: self.pool, head, hidden })
    }

    /// The loss of windows, without gradients.
    ///
    /// # Errors
    /// As [`TrainModel::hidden`], and the errors of `targets`.
    pub fn loss(&self, windows: &[Vec<u32>], targets: &mut dyn Targets, options: LossOptions) -> Result<LossSums> {
        let normed = self.hidden(windows)?;
        self.head_pass(windows, &normed, targets, LossScale { kl: 0.0, ce: options.ce }, None)
    }

    /// The loss of windows; its gradient, with these factors of each position, is added to those of the registry.
    ///
    /// # Errors
    /// As [`TrainModel::loss`].
    pub fn loss_and_gradients(
        &mut self,
        windows: &[Vec<u32>],
        targets: &mut dyn Targets,
        scale: LossScale,
    ) -> Result<LossSums> {
        let gradients = self.weights.params.take_gradients();
        let sums = self.pass(windows, targets, scale, &gradients);
        self.weights.params.put_gradients(gradients);
        sums
    }

    fn pass(
        &self,
        windows: &[Vec<u32>],
        targets: &mut dyn Targets,
        scale: LossScale,
        gradients: &Gradients,
    ) -> Result<LossSums> {
        let Trace { mut saved, last, normed } = self.trace(windows, true)?;
        let mut wanted = HeadGradients { d_normed: vec![0.0; normed.len()], gradients };
        let sums = self.head_pass(windows, &normed, targets, scale, Some(&mut wanted))?;
        let (d_normed, mut parts) = (wanted.d_normed, Vec::new());
        let pass = Pass::new(self.files(), windows)?;
        let mut d_x = vec![0.0; last.len()];
        let context = self.context(&pass, 0);
        self.final_norm(context)?.backward(context, [&last, &d_normed], &mut d_x, &mut parts);
        gradients.add(parts);
        while let Some(of_layer) = saved.pop() {
            let layer = saved.len();
            let scores = targets.scores(layer).map(|(scores, factor)| (scores, factor * scale.kl));
            let context = Context { scores, ..self.context(&pass, layer) };
            let done = layer::backward(context, of_layer, d_x, gradients)?;
            d_x = done.d_x;
            gradients.add(done.parts);
        }
        self.embedding_backward(windows, &d_x, gradients)?;
        Ok(sums)
    }

    fn embedding_backward(&self, windows: &[Vec<u32>], d_x: &[f32], gradients: &Gradients) -> Result<()> {
        let width = self.files().config.hidden;
        if !self.weights.wants("token_embd.weight") {
            return Ok(());
        }
        for (&token, d_row) in windows.iter().flatten().zip(d_x.chunks_exact(width)) {
            let row = self.weights.row("token_embd.weight", token as usize)?;
            gradients.add(self.weights.gradients("token_embd.weight", token as usize, &row, d_row.to_vec()));
        }
        Ok(())
    }

    /// The loss of all positions, with the gradients of the states and of the head where they are `wanted`.
    fn head_pass(
        &self,
        windows: &[Vec<u32>],
        normed: &[f32],
        targets: &mut dyn Targets,
        scale: LossScale,
        mut wanted: Option<&mut HeadGradients<'_>>,
    ) -> Result<LossSums> {
        let config = &self.files().config;
        let (width, vocab) = (config.hidden, config.vocab);
        let mut sums = LossSums::default();
        let mut labels: Vec<Option<u32>> =
            windows.iter().flat_map(|w| w.iter().skip(1).map(|&t| Some(t)).chain([None])).collect();
        if scale.ce == 0.0 {
            labels.fill(None);
        }
        let pass = Pass::new(self.files(), &[])?;
        let context = self.context(&pass, 0);
        let head = Linear::named(context, self.head_name().to_owned(), 0, width)?;
        for first in (0..labels.len()).step_by(LOGIT_TOKENS) {
            let n = LOGIT_TOKENS.min(labels.len() - first);
            let rows = &normed[first * width..(first + n) * width];
            let logits = head.forward(context, rows);
            let mut tasks: Vec<Task<'_>> = logits
                .chunks_exact(vocab)
                .zip(&labels[first..first + n])
                .map(|(logits, &label)| Task {
                    logits,
                    label,
                    teacher: Held::None,
                    factor: 1.0,
                    d: vec![0.0; vocab],
                    kl: 0.0,
                    ce: 0.0,
                })
                .collect();
            targets.targets(first, n, &mut |position, target| tasks[position - first].teacher = Held::of(target))?;
            (first..).zip(&mut tasks).for_each(|(position, task)| task.factor = targets.factor(position));
            self.pool.chunks_mut(&mut tasks, 8, |_, tasks| tasks.iter_mut().for_each(|task| task.compute(scale)));
            for task in &tasks {
                sums.kl += task.kl;
                sums.ce += task.ce;
                sums.positions += usize::from(!matches!(task.teacher, Held::None));
                sums.labels += usize::from(task.label.is_some());
            }
            if let Some(HeadGradients { d_normed, gradients }) = wanted.as_deref_mut() {
                let d_logits: Vec<f32> = tasks.into_iter().flat_map(|task| task.d).collect();
                let mut parts = Vec::new();
                let d_rows = &mut d_normed[first * width..(first + n) * width];
                head.backward(context, [rows, &d_logits], d_rows, &mut parts);
                gradients.add(parts);
            }
        }
        Ok(sums)
    }
}

/// Where the gradients of a head pass go.
struct HeadGradients<'g> {
    d_normed: Vec<f32>,
    gradients: &'g Gradients,
}

/// A target that is held until its position is computed.
enum Held {
    None,
    Full(Vec<f32>),
    Sparse(Vec<u32>, Vec<f32>),
    Action(Action),
}

impl Held {
    fn of(target: Target<'_>) -> Self {
        match target {
            Target::Full(logits) => Held::Full(logits.to_vec()),
            Target::Sparse { tokens, probabilities } => Held::Sparse(tokens.to_vec(), probabilities.to_vec()),
            Target::Action(action) => Held::Action(action),
        }
    }
}

/// The loss of one position.
struct Task<'t> {
    logits: &'t [f32],
    label: Option<u32>,
    teacher: Held,
    factor: f32,
    /// `[vocab]`: the gradient of the logits.
    d: Vec<f32>,
    kl: f64,
    ce: f64,
}

impl Task<'_> {
    fn compute(&mut self, scale: LossScale) {
        let LossScale { kl, ce } = scale.times(self.factor);
        let target = match &self.teacher {
            Held::None => None,
            Held::Full(logits) => Some(Target::Full(logits)),
            Held::Sparse(tokens, probabilities) => Some(Target::Sparse { tokens, probabilities }),
            Held::Action(action) => Some(Target::Action(*action)),
        };
        if let Some(target) = target {
            self.kl = divergence(self.logits, target, kl, &mut self.d);
        }
        if let Some(label) = self.label {
            self.ce = cross_entropy(self.logits, label, ce, &mut self.d);
        }
    }
}
