//! One rule per entry of the registry, with its state.

use tl_kernels::Pool;

use super::adamw::AdamW;
use super::muon::Muon;
use crate::train::params::{Group, Kind, Param, Params};

/// How matrices are stepped. Norms, scales, biases, latents, router, embedding and head are always stepped by AdamW.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// AdamW for matrices as for all else.
    AdamW,
    /// Muon for the matrices of networks and attention.
    Muon,
}

/// The rules and their constants.
#[derive(Clone, Copy, Debug)]
pub struct OptimizerOptions {
    /// The rule of matrices.
    pub rule: Rule,
    /// The constants of AdamW.
    pub adamw: AdamW,
    /// The constants of Muon.
    pub muon: Muon,
}

impl Default for OptimizerOptions {
    fn default() -> Self {
        Self { rule: Rule::AdamW, adamw: AdamW::default(), muon: Muon::default() }
    }
}

/// The state of all entries.
#[derive(Clone, Debug)]
pub struct Optimizer {
    options: OptimizerOptions,
    /// The number of steps so far.
    pub(crate) steps: usize,
    /// Per entry, two numbers per value: mean and squares for AdamW, the momentum and nothing for Muon.
    pub(crate) moments: Vec<[Vec<f32>; 2]>,
}

impl Optimizer {
    /// The state before the first step.
    #[must_use]
    pub fn new(options: OptimizerOptions, params: &Params) -> Self {
        let moments = params.list().iter().map(|param| {
            let squares = if uses_muon(options.rule, param) { 0 } else { param.values.len() };
            [vec![0.0; param.values.len()], vec![0.0; squares]]
        });
        Self { options, steps: 0, moments: moments.collect() }
    }

    /// Changes all values by their gradients; `rate` gives the rate of an entry.
    pub fn step(&mut self, pool: &Pool, params: &mut Params, rate: &dyn Fn(&Param) -> f32) {
        self.steps += 1;
        let (options, steps) = (self.options, self.steps);
        for (param, moments) in params.list_mut().iter_mut().zip(&mut self.moments) {
            let lr = rate(param);
            let [first, second] = moments;
            if uses_muon(options.rule, param) {
                let matrix = param.matrix_rows * param.cols;
                let runs = param.values.chunks_exact_mut(matrix).zip(first.chunks_exact_mut(matrix));
                for ((values, momentum), gradient) in runs.zip(param.gradient.chunks_exact(matrix)) {
                    options.muon.step(pool, lr, param.cols, [values, momentum], gradient);
                }
            } else {
                options.adamw.step(lr, steps, &mut param.values, &param.gradient, [first, second]);
            }
        }
    }
}

fn uses_muon(rule: Rule, param: &Param) -> bool {
    let is_matrix = param.kind == Kind::Weights && param.matrix_rows > 1 && param.cols > 1;
    let is_hidden = matches!(param.group, Group::SharedExperts | Group::DenseNetwork | Group::Attention);
    rule == Rule::Muon && is_matrix && is_hidden
}
