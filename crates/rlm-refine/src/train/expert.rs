//! One routed expert that learns to compute what the teacher's does.
//!
//! ```text
//! student's inputs x ──► gate, up, down of rounded latents ──► y          loss = sum w |y - t|^2 / sum w |t|^2
//! teacher's inputs   ──► the teacher's expert ──────────────► t          w = gate^2 / |stream behind the layer|^2
//! ```
//! The latents start at the student's trits, the gradient passes through the rounding, and the scales are trained with them.
//!
//! **Invariant:** an expert whose error on held-out tokens does not fall stays as it is, so one that saw few tokens cannot get worse.

use moe_runtime::ModelFiles;
use serde::Serialize;
use tl_kernels::Pool;

use super::batches::Batches;
use super::descent::Descent;
use super::model::TrainModel;
use super::ops::rope::Turns;
use super::optim::{Optimizer, OptimizerOptions, Schedule};
use super::parts::context::Context;
use super::parts::network::Network;
use super::refine::LATENT_MARGIN;
use super::weights::{EXPERT_PARTS, Weights, changed_share};
use super::write::encode;
use crate::error::Result;

/// The settings of a distillation of experts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SequentialOptions {
    /// Steps of each expert.
    pub steps: usize,
    /// A step takes as many tokens as an expert sees in so many windows on average.
    pub windows_per_step: usize,
    /// The highest rate of matrices; latents take 5 times as much, scales 3 times.
    pub lr: f32,
    /// Seed of the order of tokens.
    pub seed: u64,
}

/// The outcome of one expert.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DistilledExpert {
    /// Position of its layer in the model.
    pub layer: usize,
    /// Its number in the layer.
    pub expert: usize,
    /// Tokens that it was trained on.
    pub tokens: usize,
    /// The number of its weights that are trained.
    pub trits: u64,
    /// The share of them that are others than before; 0 where it stays as it is.
    pub changed_trits: f64,
    /// Squared error on held-out tokens over the squared length of the teacher's outputs, before and after; `None` without such tokens.
    pub error: Option<[f64; 2]>,
    /// Whether the trained weights are in the output.
    pub is_kept: bool,
}

/// An expert with the tokens of its layer.
pub(super) struct ExpertTask<'t> {
    pub(super) student: &'t ModelFiles,
    pub(super) teacher: &'t TrainModel<'t>,
    pub(super) layer: usize,
    pub(super) expert: usize,
    /// The inputs of the layer's experts, `[n, hidden]`, of student and teacher.
    pub(super) rows: [&'t [f32]; 2],
    /// The tokens that train the expert and those that judge it: rows and weights.
    pub(super) tokens: [Vec<(usize, f32)>; 2],
    /// The share of the training tokens that a step takes.
    pub(super) share: f64,
    pub(super) options: &'t SequentialOptions,
}

/// The bytes of gate, up and down in the file; `None` for a matrix that stays.
pub(super) type ExpertBytes = [Option<Vec<u8>>; 3];

/// Inputs, targets and weights of some tokens.
struct Rows {
    width: usize,
    x: Vec<f32>,
    targets: Vec<f32>,
    weights: Vec<f32>,
}

impl Rows {
    fn taken(&self, order: &[usize]) -> Rows {
        let rows = |of: &[f32]| order.iter().flat_map(|&t| &of[t * self.width..][..self.width]).copied().collect();
        let weights = order.iter().map(|&t| self.weights[t]).collect();
        Rows { width: self.width, x: rows(&self.x), targets: rows(&self.targets), weights }
    }

    /// The loss of the outputs `y`, and its gradient.
    fn loss(&self, y: &[f32]) -> (f64, Vec<f32>) {
        let square = |v: f32| f64::from(v) * f64::from(v);
        let rows = || y.chunks_exact(self.width).zip(self.targets.chunks_exact(self.width)).zip(&self.weights);
        let (mut error, mut whole) = (0.0, 0.0);
        for ((y, target), &weight) in rows() {
            error += f64::from(weight) * y.iter().zip(target).map(|(y, t)| square(y - t)).sum::<f64>();
            whole += f64::from(weight) * target.iter().map(|t| square(*t)).sum::<f64>();
        }
        if whole <= 0.0 {
            return (0.0, vec![0.0; y.len()]);
        }
        let of_row = |((y, target), weight): ((&[f32], &[f32]), &f32)| -> Vec<f32> {
            let factor = (2.0 * f64::from(*weight) / whole) as f32;
            y.iter().zip(target).map(|(y, t)| factor * (y - t)).collect()
        };
        (error / whole, rows().flat_map(of_row).collect())
    }
}

impl ExpertTask<'_> {
    /// Trains the expert on one thread, and returns its bytes where they are to be kept. The event `ExpertDistilled` is for the caller.
    pub(super) fn run(&self) -> Result<(DistilledExpert, ExpertBytes)> {
        let mut weights = Weights::of_expert(self.student, self.layer, self.expert)?;
        let trits: u64 = weights.changed_matrices()?.iter().map(|matrix| matrix.trits).sum();
        let mut outcome = DistilledExpert {
            layer: self.layer,
            expert: self.expert,
            tokens: self.tokens[0].len(),
            trits,
            changed_trits: 0.0,
            error: None,
            is_kept: false,
        };
        if trits == 0 || self.tokens.iter().any(Vec::is_empty) {
            return Ok((outcome, ExpertBytes::default()));
        }
        let turns = Turns::new(&self.student.config.rotation()?, 0);
        let scope = Scope { pool: Pool::serial(), turns };
        let [fit, held_out] = [0, 1].map(|i| self.rows_of(&scope, &self.tokens[i]));
        let (fit, held_out) = (fit?, held_out?);
        let before = self.error(&scope, &weights, &held_out)?;
        weights.start_latents(self.teacher.files(), LATENT_MARGIN)?;
        self.train(&scope, &mut weights, &fit)?;
        let after = self.error(&scope, &weights, &held_out)?;
        outcome.error = Some([before, after]);
        outcome.is_kept = after < before;
        if !outcome.is_kept {
            return Ok((outcome, ExpertBytes::default()));
        }
        outcome.changed_trits = changed_share(&weights.changed_matrices()?).unwrap_or(0.0);
        Ok((outcome, self.bytes(&scope, &weights)?))
    }

    /// The tokens with what the teacher's expert computes for them.
    fn rows_of(&self, scope: &Scope, tokens: &[(usize, f32)]) -> Result<Rows> {
        let width = self.student.config.hidden;
        let [x, theirs] = self.rows.map(|rows| -> Vec<f32> {
            tokens.iter().flat_map(|&(t, _)| &rows[t * width..][..width]).copied().collect()
        });
        let context = scope.context(&self.teacher.weights, self.layer);
        let targets = Network::read(context, "_exps", self.expert)?.forward(context, &theirs);
        Ok(Rows { width, x, targets, weights: tokens.iter().map(|(_, weight)| *weight).collect() })
    }

    fn error(&self, scope: &Scope, weights: &Weights<'_>, rows: &Rows) -> Result<f64> {
        let context = scope.context(weights, self.layer);
        let (error, _) = rows.loss(&Network::read(context, "_exps", self.expert)?.forward(context, &rows.x));
        Ok(error)
    }

    fn train(&self, scope: &Scope, weights: &mut Weights<'_>, rows: &Rows) -> Result<()> {
        let SequentialOptions { steps, lr, seed, .. } = *self.options;
        let n = rows.weights.len();
        let schedule = Schedule { steps, warmup: steps / 20, floor: 0.02 };
        let seed = seed.wrapping_add(((self.layer as u64) << 32) + self.expert as u64);
        let batches = Batches { windows: n, per_step: ((n as f64 * self.share).ceil() as usize).clamp(1, n), seed };
        let mut optimizer = Optimizer::new(OptimizerOptions::default(), &weights.params);
        for step in 0..steps {
            let batch = rows.taken(&batches.of_step(step));
            let context = scope.context(weights, self.layer);
            let network = Network::read(context, "_exps", self.expert)?;
            let tape = network.tape(context, &batch.x);
            let (loss, d_y) = batch.loss(&network.output(context, &tape));
            let parts = network.backward(context, &tape, [&batch.x, &d_y], None).backward.parts;
            weights.params.clear_gradients();
            let gradients = weights.params.take_gradients();
            gradients.add(parts);
            weights.params.put_gradients(gradients);
            let mut descent = Descent {
                optimizer: &mut optimizer,
                protection: None,
                focus: None,
                pool: &scope.pool,
                lr: lr * schedule.share(step),
                clip: 1.0,
                step: step + 1,
                kept: "that of the layers that are done".to_owned(),
            };
            descent.apply(&mut weights.params, loss)?;
        }
        Ok(())
    }

    fn bytes(&self, scope: &Scope, weights: &Weights<'_>) -> Result<ExpertBytes> {
        let mut bytes = ExpertBytes::default();
        for (part, bytes) in EXPERT_PARTS.into_iter().zip(&mut bytes) {
            let catalog = &self.student.catalog;
            let Some(tensor) = catalog.find(&format!("blk.{}.{part}", self.layer)) else { continue };
            let Some(ty) = catalog.tensor_type(tensor).filter(|_| weights.wants(&tensor.name)) else { continue };
            let first = self.expert * tensor.matrix_rows();
            let rows = first..first + tensor.matrix_rows();
            let len = rows.len() * ty.row_bytes(tensor.cols())?;
            let mut made = vec![0; len];
            encode(&scope.pool, weights, tensor, ty, rows, &mut made)?;
            *bytes = Some(made);
        }
        Ok(bytes)
    }
}

/// The thread and the turns of a task; an expert has no positions.
struct Scope {
    pool: Pool,
    turns: Turns,
}

impl Scope {
    fn context<'c>(&'c self, weights: &'c Weights<'c>, layer: usize) -> Context<'c> {
        Context { pool: &self.pool, weights, windows: &[], turns: &self.turns, layer, scores: None }
    }
}
