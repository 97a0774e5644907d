//! Everything that decides how a suite is asked and judged, in a form that a part can carry to another machine.

use std::path::Path;

use anyhow::{Result, anyhow};
use behavior_eval::gates::{BehavioralGate, GateError, GateThresholds, RefusalSignals};
use behavior_eval::labels::{LabelThresholds, Perturbation, Removal};
use behavior_eval::records::artifact::Columns;
use behavior_eval::run::GateRunConfig;
use serde::{Deserialize, Serialize};

use super::options::{Args, Mode, TEACHER};
use crate::args::{Act, Kv, name};
use crate::load;

/// Largest file of refusal signals that is read, in bytes.
const MAX_SIGNAL_BYTES: u64 = 1 << 20;

/// The settings of a run without perturbation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Judging {
    max_new_tokens: u16,
    strict: bool,
    min_prompts: u64,
    /// Gates whose thresholds were replaced, by name.
    thresholds: Vec<(String, f64)>,
    label_thresholds: Vec<(String, f64)>,
    /// The text of a file of signals.
    refusal_signals: Option<String>,
    router_inputs: bool,
    compute: String,
    teacher_compute: String,
}

impl Judging {
    /// The settings of a command line.
    ///
    /// # Errors
    /// A file of refusal signals that cannot be read.
    pub(super) fn of(args: &Args) -> Result<Judging> {
        let signals = |path: &Path| load::read_at_most(path, MAX_SIGNAL_BYTES);
        Ok(Judging {
            max_new_tokens: args.max_new_tokens,
            strict: args.strict,
            min_prompts: args.min_prompts,
            thresholds: args.thresholds.iter().map(|(gate, value)| (gate.name().to_owned(), *value)).collect(),
            label_thresholds: args.label_thresholds.clone(),
            refusal_signals: args.refusal_signals.as_deref().map(signals).transpose()?,
            router_inputs: !args.no_router_inputs,
            compute: compute(args.act, args.kv),
            teacher_compute: compute(TEACHER.0, TEACHER.1),
        })
    }

    /// The configuration of the run; `signals_file` names the refusal signals in messages.
    ///
    /// # Errors
    /// Gates and signals that do not exist, values out of range, and refusal signals that hold none.
    pub(super) fn config(&self, signals_file: &Path) -> Result<GateRunConfig> {
        let mut thresholds = GateThresholds::default();
        thresholds.min_samples = self.min_prompts;
        for (gate, value) in &self.thresholds {
            let gate: BehavioralGate = gate.parse().map_err(|error: GateError| behavior_eval::Error::from(error))?;
            thresholds.set(gate, *value).map_err(behavior_eval::Error::from)?;
        }
        let mut labels = LabelThresholds::default();
        for (signal, value) in &self.label_thresholds {
            labels.set(signal, *value).map_err(behavior_eval::Error::from)?;
        }
        let signals = match &self.refusal_signals {
            None => RefusalSignals::default(),
            Some(text) => {
                RefusalSignals::parse(text).map_err(|error| anyhow!("{}: {error}", signals_file.display()))?
            }
        };
        Ok(GateRunConfig {
            max_new_tokens: usize::from(self.max_new_tokens),
            strict: self.strict,
            thresholds,
            perturbation: None,
            compute: self.compute.clone(),
            teacher_compute: self.teacher_compute.clone(),
            columns: Columns { router_inputs: self.router_inputs, ..Columns::default() },
            labels,
            signals,
        })
    }
}

/// The configuration of the run that a command line describes.
///
/// # Errors
/// A file of refusal signals that cannot be read or holds none.
pub(super) fn config(args: &Args) -> Result<GateRunConfig> {
    let removal = match args.perturb_mode {
        Mode::Random => Removal::Random,
        Mode::Stratified => Removal::StratifiedBySource,
        Mode::Fragile => Removal::MostFragileFirst,
    };
    let perturbation = args.perturb.map(|fraction| Perturbation { fraction, removal, seed: args.perturb_seed });
    let signals_file = args.refusal_signals.as_deref().unwrap_or(Path::new(""));
    Ok(GateRunConfig { perturbation, ..Judging::of(args)?.config(signals_file)? })
}

/// The precision of a model, in the words of the command line.
fn compute(act: Act, kv: Kv) -> String {
    format!("activations {}, cache {}", name(&act), name(&kv))
}
