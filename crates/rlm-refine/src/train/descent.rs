//! From the gradients of a step to new values, whatever loss they are of.
//!
//! ```text
//! gradients + those of the penalty ──► all finite? ──► clipped ──► optimiser ──► longer moves of the focus ──► all finite?
//! ```
//! **Invariant:** values stay as they are where a gradient or the loss is not finite.

use tl_kernels::Pool;

use super::error::TrainError;
use super::focus::Focus;
use super::optim::{Optimizer, clip};
use super::params::{Group, Kind, Param, Params};
use crate::adapt::EwcRegularizer;

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

/// The parts of a run that a step is made of.
pub(super) struct Descent<'t> {
    pub(super) optimizer: &'t mut Optimizer,
    pub(super) protection: Option<&'t EwcRegularizer>,
    pub(super) focus: Option<&'t Focus>,
    pub(super) pool: &'t Pool,
    /// The rate of matrices in this step.
    pub(super) lr: f32,
    /// Most length of the gradient.
    pub(super) clip: f32,
    /// Number of the step, from 1, for messages.
    pub(super) step: usize,
    /// The last good state in words, for messages.
    pub(super) kept: String,
}

/// The figures of a step that was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Descended {
    /// Length of the gradient before it was clipped.
    pub(super) gradient: f64,
    /// The penalty on moves of protected numbers, where there is one.
    pub(super) ewc: Option<f64>,
}

impl Descent<'_> {
    /// Changes the values by their gradients, which are those of `loss`.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`].
    pub(super) fn apply(&mut self, params: &mut Params, loss: f64) -> Result<Descended, TrainError> {
        let ewc = self.protection.map(|protection| protection.add_gradient(params));
        self.refuse("the gradient", params.broken_gradient())?;
        if !loss.is_finite() {
            let group = params.list().first().map(|param| param.group);
            return Err(self.not_finite("the loss".to_owned(), group));
        }
        let gradient = clip(params, self.clip);
        let (before, lr) = (self.focus.map(|focus| focus.before(params)), self.lr);
        self.optimizer.step(self.pool, params, &|param| lr * rate_factor(param.group, param.kind));
        if let (Some(focus), Some(before)) = (self.focus, before) {
            focus.lengthen(before, params);
        }
        self.refuse("a value", params.broken_value())?;
        Ok(Descended { gradient, ewc })
    }

    fn refuse(&self, what: &str, broken: Option<&Param>) -> Result<(), TrainError> {
        match broken {
            None => Ok(()),
            Some(param) => Err(self.not_finite(format!("{what} of {}", param.name), Some(param.group))),
        }
    }

    fn not_finite(&self, what: String, group: Option<Group>) -> TrainError {
        let group = group.map_or("none", Group::name);
        TrainError::NotFinite { step: self.step, what, group, kept: self.kept.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::optim::OptimizerOptions;

    fn params() -> Params {
        let mut params = Params::default();
        params.add(Param {
            name: "blk.2.ffn_up_exps.weight".to_owned(),
            group: Group::Scales,
            kind: Kind::LogScales,
            rows: 4,
            cols: 2,
            matrix_rows: 1,
            block_scales: Vec::new(),
            values: vec![0.0; 8],
            gradient: Vec::new(),
        });
        params.list_mut()[0].gradient.fill(1.0);
        params
    }

    fn apply(params: &mut Params, focus: Option<&Focus>, lr: f32, loss: f64) -> Result<Descended, TrainError> {
        let (pool, mut optimizer) = (Pool::serial(), Optimizer::new(OptimizerOptions::default(), params));
        let kept = "the student itself".to_owned();
        let mut descent =
            Descent { optimizer: &mut optimizer, protection: None, focus, pool: &pool, lr, clip: 1.0, step: 7, kept };
        descent.apply(params, loss)
    }

    #[test]
    fn named_experts_move_further_in_every_step() {
        let (mut plain, mut focused) = (params(), params());
        let focus = Focus { experts: vec![(2, 1)], factor: 3.0, n_experts: 4 };
        let done = apply(&mut plain, None, 0.01, 1.0).unwrap();
        assert_eq!(done, apply(&mut focused, Some(&focus), 0.01, 1.0).unwrap());
        assert!((done.gradient - 8f64.sqrt()).abs() < 1e-6 && done.ewc.is_none());
        for (i, (a, b)) in plain.list()[0].values.iter().zip(&focused.list()[0].values).enumerate() {
            let factor = if i == 2 || i == 3 { 3.0 } else { 1.0 };
            assert!(*a < 0.0 && *b == factor * *a, "{i}: {a} {b}");
        }
    }

    #[test]
    fn nothing_moves_where_a_gradient_or_the_loss_is_not_finite_and_a_value_that_is_not_is_refused() {
        let mut broken = params();
        broken.list_mut()[0].gradient[5] = f32::NAN;
        let error = apply(&mut broken, None, 0.01, 1.0).unwrap_err().to_string();
        assert!(error.contains("step 7: the gradient of blk.2.ffn_up_exps.weight"), "{error}");
        let mut lost = params();
        let error = apply(&mut lost, None, 0.01, f64::INFINITY).unwrap_err().to_string();
        assert!(error.contains("step 7: the loss") && error.contains("`scales`"), "{error}");
        assert!([broken, lost].iter().all(|params| params.list()[0].values == [0.0; 8]));
        let mut far = params();
        far.list_mut()[0].gradient.fill(-1.0);
        let error = apply(&mut far, None, 1e30, 1.0).unwrap_err().to_string();
        assert!(error.contains("a value of ") && error.contains("the student itself"), "{error}");
    }
}
