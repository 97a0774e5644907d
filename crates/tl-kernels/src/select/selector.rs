//! The choice of a kernel for each type of weights.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ternary_core::ActMode;

use super::memory::TrialMemory;
use super::registry::KernelRegistry;
use super::selftest;
use super::trial::{self, Candidate, Question};
use crate::arch::Isa;
use crate::error::Result;
use crate::matmul::{KernelKind, Linear};

/// The rules by which kernels are chosen.
#[derive(Debug, Clone, Default)]
pub struct SelectorOptions {
    /// The kernel for ternary weights; `None` for the default. Where activations stay F32 the default runs regardless.
    pub kernel: Option<KernelKind>,
    /// If set, levels below the highest are timed where they may be as fast, and the results are kept here. A type of
    /// weights that has a result is not timed again.
    pub trial: Option<TrialMemory>,
}

/// The reason for the choice of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It was asked for, or is the default.
    Rule,
    /// It was the fastest in a trial.
    Trial,
    /// It was the fastest in an earlier trial on this machine with this file.
    Remembered,
    /// The choice failed its self-test; this is the next level that passed.
    FallBack,
}

impl Reason {
    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Reason::Rule => "rule",
            Reason::Trial => "trial",
            Reason::Remembered => "remembered trial",
            Reason::FallBack => "fall-back",
        }
    }
}

/// The kernel that runs the products of one type of weights.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelSelected {
    /// Name of the weight type.
    pub weights: &'static str,
    /// Length of a row.
    pub cols: usize,
    /// Precision of the activations.
    pub mode: ActMode,
    /// The algorithm of the products.
    pub kernel: KernelKind,
    /// The level that the kernel runs on.
    pub isa: Isa,
    /// The reason for this choice.
    pub reason: Reason,
    /// The message of the self-test for each level that failed it, the highest first.
    pub refused: Vec<String>,
}

/// Chooses kernels while a model is loaded, and keeps the record.
#[derive(Debug)]
pub struct KernelSelector {
    kernel: Option<KernelKind>,
    trial: Option<TrialMemory>,
    registry: KernelRegistry,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The type of weights that each choice is for.
    questions: Vec<Question>,
    choices: Vec<KernelSelected>,
}

impl KernelSelector {
    /// A selector for one model.
    #[must_use]
    pub fn new(options: SelectorOptions) -> KernelSelector {
        let level = Isa::current();
        KernelSelector {
            kernel: options.kernel,
            trial: options.trial,
            registry: KernelRegistry::up_to(level),
            state: Mutex::new(State { questions: Vec::new(), choices: Vec::new() }),
        }
    }

    /// The layer on the kernel for its type, which is chosen and tested on this layer if it is the first of the type.
    ///
    /// # Errors
    /// A damaged ternary block, or a self-test that not even the lowest level passes.
    pub fn select(&self, linear: Linear) -> Result<Linear> {
        let (weights, cols, mode, layout) = (linear.type_name(), linear.cols(), linear.act_mode(), linear.kernel());
        let question = Question { weights, cols, mode, layout };
        let mut state = self.state();
        if let Some(known) = state.questions.iter().position(|known| *known == question) {
            let chosen = (state.choices[known].kernel, state.choices[known].isa);
            drop(state);
            return apply(linear, chosen);
        }
        let (chosen, reason) = self.choose(&question, &linear);
        let (passed, refused) = selftest::probe_and_fall_back(apply(linear, chosen)?)?;
        let choice = KernelSelected {
            weights,
            cols,
            mode,
            kernel: passed.kernel(),
            isa: passed.isa(),
            reason: if refused.is_empty() { reason } else { Reason::FallBack },
            refused: refused.iter().map(ToString::to_string).collect(),
        };
        announce(&choice);
        state.choices.push(choice);
        state.questions.push(question);
        Ok(passed)
    }

    /// The choices so far, in the order in which types were met.
    #[must_use]
    pub fn choices(&self) -> Vec<KernelSelected> {
        self.state().choices.clone()
    }

    /// The kernel and level to test: by the rule, from an earlier trial, or by a trial now.
    fn choose(&self, question: &Question, linear: &Linear) -> (Candidate, Reason) {
        let kernels: Vec<KernelKind> = self.registry.kernels(question.weights, question.mode).collect();
        let default = kernels.first().copied().unwrap_or_else(|| linear.kernel());
        // Weights that were given a layout keep it.
        let given = Some(question.layout).filter(|kernel| kernel.needs_layout());
        let kernel = given.or(self.kernel).filter(|kernel| kernels.contains(kernel)).unwrap_or(default);
        let rule = (kernel, linear.isa());
        let candidates = self.candidates(rule);
        let Some(memory) = self.trial.as_ref().filter(|_| candidates.len() > 1) else {
            return (rule, Reason::Rule);
        };
        if let Some(earlier) = memory.get(question).filter(|earlier| candidates.contains(earlier)) {
            return (earlier, Reason::Remembered);
        }
        match trial::sample(linear).and_then(|sample| trial::fastest(&sample, &candidates)) {
            Some(fastest) => {
                memory.put(question, fastest);
                (fastest, Reason::Trial)
            }
            None => (rule, Reason::Rule),
        }
    }

    /// The kernel of the rule on every level with vectors. A lower level can win: wider vectors lower the clock of some
    /// processors, and a kernel that waits for memory gains nothing from them.
    fn candidates(&self, rule: Candidate) -> Vec<Candidate> {
        let lower = self.registry.levels().iter().filter(|&&isa| isa < rule.1 && isa != Isa::Scalar);
        std::iter::once(rule).chain(lower.map(|&isa| (rule.0, isa))).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic inside leaves a list that lacks a choice; the next layer of that type makes it again.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for KernelSelector {
    /// A selector with the rules and the self-test, without trials.
    fn default() -> KernelSelector {
        KernelSelector::new(SelectorOptions::default())
    }
}

fn apply(linear: Linear, (kernel, isa): Candidate) -> Result<Linear> {
    let linear = if linear.kernel() == kernel { linear } else { linear.with_kernel(kernel)? };
    linear.with_isa(isa)
}

fn announce(choice: &KernelSelected) {
    tracing::info!(
        name: "KernelSelected",
        weights = choice.weights,
        cols = choice.cols,
        activations = ?choice.mode,
        kernel = choice.kernel.name(),
        isa = choice.isa.name(),
        reason = choice.reason.name(),
        refused = choice.refused.len(),
        "KernelSelected"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broken;
    use ternary_core::{ActMode, BLOCK, Packing, Rounding, TernaryTensor};

    fn ternary(mode: ActMode) -> Linear {
        let weights: Vec<f32> = (0..70 * BLOCK).map(|i| ((i * 31) % 17) as f32 - 8.0).collect();
        let tensor = TernaryTensor::quantize(Packing::Tq2_0, Rounding::AbsMean, 70, BLOCK, &weights, None).unwrap();
        Linear::ternary(tensor, mode).unwrap()
    }

    fn with_kernel(kernel: KernelKind) -> KernelSelector {
        KernelSelector::new(SelectorOptions { kernel: Some(kernel), ..SelectorOptions::default() })
    }

    #[test]
    fn the_rule_is_the_default_or_what_was_asked_for() {
        let selector = KernelSelector::default();
        assert_eq!(selector.select(ternary(ActMode::A8Block)).unwrap().kernel(), KernelKind::I2s);
        let selector = with_kernel(KernelKind::Tl2);
        assert_eq!(selector.select(ternary(ActMode::A8Block)).unwrap().kernel(), KernelKind::Tl2);
        assert_eq!(selector.select(ternary(ActMode::F32)).unwrap().kernel(), KernelKind::I2s);
        let packed = ternary(ActMode::A8Block).with_kernel(KernelKind::Tiles).unwrap();
        assert_eq!(selector.select(packed).unwrap().kernel(), KernelKind::Tiles, "a layout is kept");
        let dense = Linear::from_f32(1, 2, vec![1.0, 2.0]).unwrap();
        assert_eq!(selector.select(dense).unwrap().kernel(), KernelKind::Dense);
        let reasons: Vec<_> = selector.choices().iter().map(|c| c.reason).collect();
        assert_eq!(reasons, [Reason::Rule; 4]);
    }

    #[test]
    fn a_broken_kernel_is_caught_and_every_layer_of_its_type_falls_back() {
        let highest = Isa::current();
        let Some(lower) = highest.lower() else {
            return;
        };
        for kernel in [KernelKind::I2s, KernelKind::Tiles, KernelKind::Tl1, KernelKind::Tl2] {
            broken::with(kernel, highest, || {
                let selector = with_kernel(kernel);
                for _ in 0..2 {
                    let passed = selector.select(ternary(ActMode::A8Block)).unwrap();
                    assert_eq!((passed.kernel(), passed.isa()), (kernel, lower));
                }
                let choices = selector.choices();
                assert_eq!(choices.len(), 1, "one choice for both layers");
                assert_eq!((choices[0].reason, choices[0].refused.len()), (Reason::FallBack, 1));
                assert!(choices[0].refused[0].contains(highest.name()), "{:?}", choices[0].refused);
            });
        }
    }

    #[test]
    fn a_kernel_that_no_level_runs_right_is_an_error() {
        broken::with(KernelKind::I2s, Isa::Scalar, || {
            let scalar = ternary(ActMode::A8Block).with_isa(Isa::Scalar).unwrap();
            assert!(matches!(selftest::probe_and_fall_back(scalar), Err(crate::Error::SelfTest { .. })));
        });
    }

    #[test]
    fn a_trial_is_remembered_and_changes_no_result() {
        let memory = TrialMemory::new("model 1", None);
        let options =
            |memory: &TrialMemory| SelectorOptions { trial: Some(memory.clone()), ..SelectorOptions::default() };
        let first = KernelSelector::new(options(&memory));
        let chosen = first.select(ternary(ActMode::A8Block)).unwrap();
        let candidates = first.candidates((KernelKind::I2s, Isa::current()));
        assert!(candidates.contains(&(chosen.kernel(), chosen.isa())));
        let text = memory.unsaved();
        let again = KernelSelector::new(options(&TrialMemory::new("model 1", text.as_deref())));
        assert_eq!(again.select(ternary(ActMode::A8Block)).unwrap().isa(), chosen.isa());
        if candidates.len() > 1 {
            assert_eq!(first.choices()[0].reason, Reason::Trial);
            assert_eq!(again.choices()[0].reason, Reason::Remembered);
            assert!(text.is_some(), "there is something to keep");
        }
    }
}
