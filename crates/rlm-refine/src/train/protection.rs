//! The effect of a run on texts that it is to leave as they are.
//!
//! **Invariant:** windows that are judged are none of those that the information was measured on.

use serde::Serialize;

use super::trainer::Trainer;
use super::windows::split;
use crate::adapt::EwcDrift;
use crate::error::Result;

/// The effect of a run on the texts that it was to leave as they are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProtectionReport {
    /// Windows and tokens that the information was measured on.
    pub windows: usize,
    /// The number of these tokens.
    pub tokens: u64,
    /// Numbers that the penalty counts.
    pub kept: usize,
    /// The penalty at the end, without its factor: about the divergence from the student before, in nats per token.
    pub penalty: f64,
    /// Mean divergence from the teacher on protected windows that are held out, before and after; `None` without such windows.
    pub held_out_kl: Option<[f64; 2]>,
    /// The way of each tensor.
    pub drift: Vec<EwcDrift>,
}

/// Protected windows that are held out, and their divergence before the first step.
pub(super) struct Protected {
    held_out: Vec<Vec<u32>>,
    kl_before: f64,
}

impl Protected {
    /// Measures the information of `windows` on the student as it is, some of them held out.
    pub(super) fn measure(trainer: &mut Trainer<'_>, windows: &[Vec<u32>]) -> Result<Self> {
        let [windows, held_out] = split(windows);
        trainer.protect(&windows)?;
        let kl_before = trainer.measure(&held_out)?.mean_kl();
        Ok(Self { held_out, kl_before })
    }

    /// The outcome behind the last step.
    pub(super) fn report(&self, trainer: &Trainer<'_>) -> Result<ProtectionReport> {
        let params = &trainer.model.weights.params;
        let after = trainer.measure(&self.held_out)?.mean_kl();
        let drift = trainer.protection().map_or_else(Vec::new, |protection| protection.drift(params));
        let (windows, tokens) = trainer.protection().map_or((0, 0), |protection| protection.measured());
        Ok(ProtectionReport {
            windows,
            tokens,
            kept: trainer.protection().map_or(0, |protection| protection.kept()),
            penalty: drift.iter().map(|tensor| tensor.penalty).sum(),
            held_out_kl: (!self.held_out.is_empty()).then_some([self.kl_before, after]),
            drift,
        })
    }
}
