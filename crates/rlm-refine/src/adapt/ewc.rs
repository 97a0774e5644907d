//! `EwcRegularizer`: holds the numbers that matter for protected texts near their values while others are trained.
//!
//! ```text
//! F  <-  decay F + (1 - decay) n g^2        per window of n tokens;  g: the gradient of its mean log p(label)
//! F^  =  F / (1 - decay^windows)            as F starts from 0
//! penalty  =  lambda / 2 sum F^ (theta - theta*)^2        d theta = lambda F^ (theta - theta*)
//! ```
//! Labels are sampled from the model itself, position by position, so `n g^2` has the diagonal of the Fisher information per token
//! as its expectation, and the penalty at `lambda` 1 is about the divergence per token from the model at `theta*`, in nats. Sources:
//! elastic weight consolidation, arXiv 1612.00796; the running mean over phases (EWC++), arXiv 1801.10112.
//!
//! **Invariant:** a phase adds to the information of the phases before it, and a window without a gradient adds nothing.

mod entry;
mod labels;

use serde::Serialize;
use tl_kernels::math;

use crate::error::Result;
use crate::train::{LossOptions, LossScale, Params, SparseTargets, TrainError, TrainModel};
use entry::Entry;
use labels::sample_labels;

pub use entry::EwcDrift;

/// The numbers that stand in place of the information, as controls of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FisherKind {
    /// The information as it was measured.
    Measured,
    /// The same numbers, each given to another parameter of the run.
    Shuffled,
    /// Their mean for every parameter: a penalty on the distance alone.
    Uniform,
}

/// The settings of a regulariser.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EwcOptions {
    /// Factor of the penalty; at 1 it counts about as much as the divergence per token of the protected texts.
    pub lambda: f32,
    /// The share of the information that is left after another window, from 0 to below 1.
    pub decay: f32,
    /// The largest numbers that are kept, over all tensors; `None` keeps all.
    pub keep: Option<usize>,
    /// Seed of the sampled labels, and of the order of [`FisherKind::Shuffled`].
    pub seed: u64,
    /// The numbers that are used as information.
    pub fisher: FisherKind,
}

impl Default for EwcOptions {
    fn default() -> Self {
        Self { lambda: 1.0, decay: 0.99, keep: None, seed: 0, fisher: FisherKind::Measured }
    }
}

/// The penalty on moves of numbers that matter for protected texts.
#[derive(Clone, Debug)]
pub struct EwcRegularizer {
    options: EwcOptions,
    /// One per entry of the registry, in its order.
    entries: Vec<Entry>,
    windows: usize,
    tokens: u64,
}

impl EwcRegularizer {
    /// A regulariser of the entries of a registry that has measured nothing yet, so its penalty is 0.
    #[must_use]
    pub fn new(options: EwcOptions, params: &Params) -> Self {
        Self { options, entries: params.list().iter().map(Entry::new).collect(), windows: 0, tokens: 0 }
    }

    /// Measures the windows of another phase on the model as it is, whose values become those to stay near. The event
    /// `EwcFisherUpdated` has the outcome. Gradients of the model are cleared.
    ///
    /// # Errors
    /// Weights that cannot be read; [`TrainError::FisherNotFinite`].
    pub fn add_phase(&mut self, model: &mut TrainModel<'_>, windows: &[Vec<u32>]) -> Result<()> {
        self.open(&model.weights.params);
        for window in windows {
            let seed = self.options.seed.wrapping_add((self.windows as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let labels = sample_labels(model, window, seed)?;
            self.add_window(model, window, &labels)?;
        }
        self.close();
        let largest = self.entries.iter().flat_map(|entry| &entry.fisher).fold(0.0f32, |most, f| most.max(*f));
        tracing::info!(
            name: "EwcFisherUpdated",
            windows = self.windows,
            tokens = self.tokens,
            kept = self.kept(),
            mean = self.mean(),
            largest = f64::from(largest) * self.correction(),
            decay = f64::from(self.options.decay),
            "EwcFisherUpdated"
        );
        Ok(())
    }

    /// Adds one window with the label of each of its positions.
    ///
    /// # Errors
    /// Weights that cannot be read; [`TrainError::FisherNotFinite`].
    pub fn add_window(&mut self, model: &mut TrainModel<'_>, window: &[u32], labels: &[u32]) -> Result<()> {
        let windows = [window.to_vec()];
        let mut targets = SparseTargets { rows: labels.iter().map(|&label| (vec![label], vec![1.0])).collect() };
        model.weights.params.clear_gradients();
        model.loss_and_gradients(&windows, &mut targets, LossScale::of(LossOptions { kl: 1.0, ce: 0.0 }, &windows))?;
        if let Some(param) = model.weights.params.broken_gradient() {
            return Err(TrainError::FisherNotFinite { tensor: param.name.clone() }.into());
        }
        for (entry, param) in self.entries.iter_mut().zip(model.weights.params.list()) {
            entry.add(self.options.decay, window.len(), &param.gradient);
        }
        model.weights.params.clear_gradients();
        self.windows += 1;
        self.tokens += window.len() as u64;
        Ok(())
    }

    /// Makes room for the information of all numbers, and stays near the values of now.
    fn open(&mut self, params: &Params) {
        self.entries.iter_mut().zip(params.list()).for_each(|(entry, param)| entry.open(param));
    }

    /// Puts a control in place of the information, and keeps the largest numbers only.
    fn close(&mut self) {
        match self.options.fisher {
            FisherKind::Measured => {}
            FisherKind::Shuffled => entry::shuffle(&mut self.entries, self.options.seed),
            FisherKind::Uniform => entry::flatten(&mut self.entries),
        }
        if let Some(keep) = self.options.keep {
            entry::keep_largest(&mut self.entries, keep);
        }
    }

    /// The factor that makes up for the start from 0.
    fn correction(&self) -> f64 {
        let left = math::pow(f64::from(self.options.decay), self.windows as f64);
        if self.windows == 0 { 0.0 } else { 1.0 / (1.0 - left) }
    }

    /// The penalty on the values of a registry, in nats per token times `lambda`.
    #[must_use]
    pub fn penalty(&self, params: &Params) -> f64 {
        let squares = self.entries.iter().zip(params.list()).map(|(entry, param)| entry.squares(&param.values));
        0.5 * f64::from(self.options.lambda) * self.correction() * squares.sum::<f64>()
    }

    /// Adds the gradient of the penalty to those of the registry, and returns the penalty.
    pub fn add_gradient(&self, params: &mut Params) -> f64 {
        let factor = f64::from(self.options.lambda) * self.correction();
        for (entry, param) in self.entries.iter().zip(params.list_mut()) {
            entry.add_gradient(factor, param);
        }
        self.penalty(params)
    }

    /// How far each tensor has moved from the values to stay near.
    #[must_use]
    pub fn drift(&self, params: &Params) -> Vec<EwcDrift> {
        let correction = self.correction();
        self.entries.iter().zip(params.list()).map(|(entry, param)| entry.drift(correction, param)).collect()
    }

    /// The information of the entry `number`, at its kept numbers in ascending order.
    #[must_use]
    pub fn fisher(&self, number: usize) -> Vec<f64> {
        let correction = self.correction();
        self.entries[number].fisher.iter().map(|&f| f64::from(f) * correction).collect()
    }

    /// The number of windows and of tokens that were measured.
    #[must_use]
    pub fn measured(&self) -> (usize, u64) {
        (self.windows, self.tokens)
    }

    /// Numbers that are kept, over all entries.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.entries.iter().map(|entry| entry.fisher.len()).sum()
    }

    /// The mean information of the kept numbers.
    #[must_use]
    pub fn mean(&self) -> f64 {
        let sum = self.entries.iter().flat_map(|entry| &entry.fisher).map(|&f| f64::from(f)).sum::<f64>();
        self.correction() * sum / self.kept().max(1) as f64
    }
}
