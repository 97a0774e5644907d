//! A gate run: a suite with everything that decides how it is asked and judged.

use std::path::Path;

use crate::Result;
use crate::gates::{GateError, GateThresholds, RefusalSignals, check_balance};
use crate::labels::{LabelReport, LabelThresholds, Perturbation, Perturbed, labels, perturb};
use crate::records::artifact::Columns;
use crate::report::Settings;
use crate::suite::{Label, Prompt, Suite, SuiteError};

/// How a suite is asked and judged.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct GateRunConfig {
    pub max_new_tokens: usize,
    /// Whether lower ends of intervals have to pass.
    pub strict: bool,
    pub thresholds: GateThresholds,
    pub labels: LabelThresholds,
    pub signals: RefusalSignals,
    /// Evidence to take away for a second pass.
    pub perturbation: Option<Perturbation>,
    /// How the student computes, in words.
    pub compute: String,
    /// How the teacher computes, in words; part of what a recording is of.
    pub teacher_compute: String,
    pub columns: Columns,
}

impl Default for GateRunConfig {
    /// 64 tokens, the ship rule as it stands, no perturbation.
    fn default() -> Self {
        Self {
            max_new_tokens: 64,
            strict: false,
            thresholds: GateThresholds::default(),
            labels: LabelThresholds::default(),
            signals: RefusalSignals::default(),
            perturbation: None,
            compute: "f32".to_owned(),
            teacher_compute: "f32".to_owned(),
            columns: Columns::default(),
        }
    }
}

/// Which part of a run is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "variants without a sentence speak for themselves")]
pub enum Stage {
    Teacher,
    /// The teacher is recorded on the prompts that lost evidence.
    TeacherPerturbed,
    Student,
    /// The student is measured on the prompts that lost evidence.
    StudentPerturbed,
}

impl Stage {
    /// A word for progress.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Stage::Teacher => "teacher",
            Stage::TeacherPerturbed => "teacher, less evidence",
            Stage::Student => "student",
            Stage::StudentPerturbed => "student, less evidence",
        }
    }
}

/// Told the stage, the prompts done and their number.
pub type OnProgress<'a> = &'a mut dyn FnMut(Stage, usize, usize);

/// A suite with everything that decides how it is asked and judged.
#[derive(Debug)]
pub struct GateRun<'a> {
    pub(super) suite: &'a Suite,
    pub(super) suite_name: String,
    pub(super) config: GateRunConfig,
    /// Folder of all artifacts.
    pub(super) root: &'a Path,
    pub(super) labels: LabelReport,
    pub(super) perturbed: Option<Perturbed>,
    /// Indices of the prompts that are run, ascending; all of them unless a part was chosen.
    pub(super) chosen: Option<Vec<usize>>,
    /// The suite that recordings and measurements of a share are of; `None` for those of the whole suite.
    pub(super) share: Option<String>,
}

impl<'a> GateRun<'a> {
    /// A run of `suite`, called `suite_name` in reports, with recordings below `root`.
    ///
    /// # Errors
    /// Before any model runs: suites that decide nothing ([`GateError::OneSided`], [`GateError::TooFewPrompts`]), a perturbation
    /// that removes nothing or everything, or leaves too few prompts with their label ([`GateError::TooFewKeepLabel`]).
    pub fn new(suite: &'a Suite, suite_name: &str, root: &'a Path, config: GateRunConfig) -> Result<Self> {
        let labels = labels(suite.prompts(), &config.labels);
        let perturbed = match &config.perturbation {
            None => None,
            Some(perturbation) => Some(perturb(suite, &labels, &config.labels, perturbation)?),
        };
        let run = Self {
            suite,
            suite_name: suite_name.to_owned(),
            config,
            root,
            labels,
            perturbed,
            chosen: None,
            share: None,
        };
        let gating = |i: usize| run.labels.prompts[i].gating();
        let need = run.config.thresholds.min_samples;
        check_balance((0..suite.prompts().len()).map(gating), need)?;
        if let Some(perturbed) = &run.perturbed {
            let kept = perturbed.kept.iter().map(|&i| gating(i));
            check_balance(kept, need).map_err(|error| among_kept(error, need))?;
        }
        Ok(run)
    }

    /// Runs the student on these prompts only, and without perturbation; see [`GateRun::check_prompts`].
    ///
    /// # Errors
    /// [`SuiteError::UnknownPrompt`] for a prompt that the suite does not have.
    pub fn only(mut self, prompt_ids: &[&str]) -> Result<Self> {
        let mut chosen = Vec::new();
        for id in prompt_ids {
            let index = self.suite.prompts().iter().position(|prompt| prompt.id == *id);
            chosen.push(index.ok_or_else(|| SuiteError::UnknownPrompt { prompt_id: (*id).to_owned() })?);
        }
        chosen.sort_unstable();
        chosen.dedup();
        (self.chosen, self.perturbed) = (Some(chosen), None);
        Ok(self)
    }

    /// The prompts of the first pass over the student.
    pub(super) fn chosen_prompts(&self) -> Vec<&'a Prompt> {
        let prompts = self.suite.prompts();
        match &self.chosen {
            None => prompts.iter().collect(),
            Some(chosen) => chosen.iter().map(|&i| &prompts[i]).collect(),
        }
    }

    /// Everything that decides the run, next to the models and the suite.
    pub fn settings(&self) -> Settings {
        Settings {
            strict: self.config.strict,
            max_new_tokens: self.config.max_new_tokens,
            compute: self.config.compute.clone(),
            thresholds: self.config.thresholds,
            label_thresholds: self.config.labels,
            refusal_signals: self.config.signals.all().map(str::to_owned).collect(),
        }
    }
}

/// The same lack, among the prompts that keep their label when evidence is taken away.
fn among_kept(error: GateError, need: u64) -> GateError {
    let (label, have, need) = match error {
        GateError::TooFewPrompts { label, have, need } => (label, have, need),
        GateError::OneSided { resolved: 0, .. } => (Label::Resolved, 0, need),
        GateError::OneSided { .. } => (Label::Indeterminate, 0, need),
        other => return other,
    };
    GateError::TooFewKeepLabel { label, have, need }
}
