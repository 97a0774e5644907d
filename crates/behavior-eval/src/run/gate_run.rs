//! A gate run from end to end: teacher, student, verdict.
//!
//! ```text
//! record_teacher    suite, and what is left of it without a part of the evidence -> artifacts, made once and reused
//! measure_student   the student's answers; its routing on the teacher's tokens   -> a journal, one unit per prompt
//! report            artifacts + journal -> trace, GateReport
//! ```
//! The three steps need the teacher, the student, and neither: so only one model is in memory at a time, and none when the
//! artifacts are there and the journal is full.
//!
//! **Invariant:** whatever a run was stopped by, the same call goes on with the first prompt that is not done, and the
//! report is the same: it is computed from what was stored alone.
//!
//! **Invariant:** memory beyond the models: the columns of one prompt, and the texts of all answers.

use super::{assemble, measure};
use crate::records::StudentJournal;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::gates::{GateConfig, GateThresholds, RefusalSignals, check_balance};
use crate::labels::{LabelReport, LabelThresholds, Perturbation, Perturbed, labels, perturb};
use crate::model::{ModelError, Subject, SubjectInfo};
use crate::records::artifact::{
    ArtifactSpec, Columns, LogitsAt, PromptInput, TeacherArtifact, open_or_record, open_recorded,
};
use crate::records::trace::TraceWriter;
use crate::report::{GateReport, PromptReport, Settings};
use crate::suite::{Label, Prompt, Suite};
use crate::{Error, Result};

/// How a suite is asked and judged.
#[derive(Clone, Debug)]
pub struct GateRunConfig {
    /// Most tokens of an answer.
    pub max_new_tokens: usize,
    /// Whether lower ends of intervals have to pass.
    pub strict: bool,
    /// What each gate demands.
    pub thresholds: GateThresholds,
    /// What makes a label out of evidence.
    pub labels: LabelThresholds,
    /// What makes a refusal.
    pub signals: RefusalSignals,
    /// Evidence to take away for a second pass.
    pub perturbation: Option<Perturbation>,
    /// How the student computes, in words.
    pub compute: String,
    /// How the teacher computes, in words; part of what a recording is of.
    pub teacher_compute: String,
    /// What is recorded of the teacher.
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
pub enum Stage {
    /// The teacher is recorded.
    Teacher,
    /// The teacher is recorded on the prompts that lost evidence.
    TeacherPerturbed,
    /// The student is measured.
    Student,
    /// The student is measured on the prompts that lost evidence.
    StudentPerturbed,
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
    root: &'a Path,
    pub(super) labels: LabelReport,
    pub(super) perturbed: Option<Perturbed>,
    /// Indices of the prompts that are run, ascending; all of them unless a part was chosen.
    chosen: Option<Vec<usize>>,
}

/// The recordings of a teacher.
#[derive(Debug)]
pub struct TeacherSide {
    /// On the suite.
    pub base: TeacherArtifact,
    /// On the prompts that lost evidence.
    pub perturbed: Option<TeacherArtifact>,
    /// Whether everything was there before.
    pub reused: bool,
    pub(super) info: SubjectInfo,
}

/// The measurements of a student.
#[derive(Debug)]
pub struct StudentSide {
    pub(super) base: StudentJournal,
    pub(super) perturbed: Option<StudentJournal>,
    pub(super) info: SubjectInfo,
}

impl StudentSide {
    /// Which model it is.
    #[must_use]
    pub fn info(&self) -> &SubjectInfo {
        &self.info
    }

    /// Prompts that an earlier run had done.
    #[must_use]
    pub fn resumed(&self) -> u64 {
        self.base.resumed() + self.perturbed.as_ref().map_or(0, StudentJournal::resumed)
    }

    /// Seconds of computing, those of earlier runs included.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.base.seconds() + self.perturbed.as_ref().map_or(0.0, StudentJournal::seconds)
    }

    /// Throws the journals away: the report is written.
    ///
    /// # Errors
    /// [`Error::Job`] when they cannot be removed.
    pub fn discard(self) -> Result<()> {
        self.base.discard()?;
        self.perturbed.map_or(Ok(()), StudentJournal::discard)
    }
}

impl<'a> GateRun<'a> {
    /// A run of `suite`, called `suite_name` in reports, with recordings below `root`.
    ///
    /// # Errors
    /// Before any model runs: suites that decide nothing ([`Error::OneSided`], [`Error::TooFewPrompts`]), a perturbation
    /// that removes nothing or everything, or leaves too few prompts with their label ([`Error::TooFewSurvive`]).
    pub fn new(suite: &'a Suite, suite_name: &str, root: &'a Path, config: GateRunConfig) -> Result<Self> {
        let labels = labels(suite.prompts(), &config.labels);
        let perturbed = match &config.perturbation {
            None => None,
            Some(perturbation) => Some(perturb(suite, &labels, &config.labels, perturbation)?),
        };
        let run = Self { suite, suite_name: suite_name.to_owned(), config, root, labels, perturbed, chosen: None };
        let gating = |i: usize| run.labels.prompts[i].gating();
        check_balance((0..suite.prompts().len()).map(gating), &run.gate_config())?;
        if let Some(perturbed) = &run.perturbed {
            let surviving = perturbed.surviving.iter().map(|&i| gating(i));
            check_balance(surviving, &run.gate_config()).map_err(|error| run.survivors(error))?;
        }
        Ok(run)
    }

    /// The same lack, among the prompts whose label survives.
    fn survivors(&self, error: Error) -> Error {
        let need = self.config.thresholds.min_samples;
        match error {
            Error::TooFewPrompts { label, have, need } => Error::TooFewSurvive { label, have, need },
            Error::OneSided { resolved: 0, .. } => Error::TooFewSurvive { label: Label::Resolved, have: 0, need },
            Error::OneSided { .. } => Error::TooFewSurvive { label: Label::Indeterminate, have: 0, need },
            other => other,
        }
    }

    /// Runs the student on these prompts only, and without perturbation; see [`GateRun::check_prompts`].
    ///
    /// # Errors
    /// [`Error::UnknownPrompt`] for a prompt that the suite does not have.
    pub fn only(mut self, prompt_ids: &[&str]) -> Result<Self> {
        let mut chosen = Vec::new();
        for id in prompt_ids {
            let index = self.suite.prompts().iter().position(|prompt| prompt.id == *id);
            chosen.push(index.ok_or_else(|| Error::UnknownPrompt { prompt_id: (*id).to_owned() })?);
        }
        chosen.sort_unstable();
        chosen.dedup();
        (self.chosen, self.perturbed) = (Some(chosen), None);
        Ok(self)
    }

    /// Opens the teacher's recordings, or makes them with the model that `load` gives; it is called at most once, and not
    /// at all when the recordings are there.
    ///
    /// # Errors
    /// Those of [`open_or_record`], and what keeps the teacher from being loaded.
    pub fn record_teacher(
        &self,
        info: &SubjectInfo,
        load: &mut dyn FnMut() -> std::result::Result<Box<dyn Subject>, ModelError>,
        progress: OnProgress<'_>,
    ) -> Result<TeacherSide> {
        let mut lazy = Lazy { load, loaded: None };
        let spec = self.spec(info, self.suite.identity(), self.config.columns);
        let base = self.artifact(&spec, self.all(), &mut lazy, &mut |done, n| progress(Stage::Teacher, done, n))?;
        let perturbed = match &self.perturbed {
            None => None,
            Some(perturbed) => {
                let prompts = perturbed.touched.iter().map(|&i| &perturbed.suite.prompts()[i]).collect();
                let mut progress = |done, n| progress(Stage::TeacherPerturbed, done, n);
                let spec = self.spec(info, perturbed.suite.identity(), bare(self.config.columns));
                Some(self.artifact(&spec, prompts, &mut lazy, &mut progress)?)
            }
        };
        Ok(TeacherSide { base, perturbed, reused: lazy.loaded.is_none(), info: info.clone() })
    }

    /// Every prompt of the suite.
    fn all(&self) -> Vec<&Prompt> {
        self.suite.prompts().iter().collect()
    }

    /// The prompts of the first pass over the student.
    pub(super) fn base_prompts(&self) -> Vec<&Prompt> {
        match &self.chosen {
            None => self.all(),
            Some(chosen) => chosen.iter().map(|&i| &self.suite.prompts()[i]).collect(),
        }
    }

    fn artifact(
        &self,
        spec: &ArtifactSpec,
        prompts: Vec<&Prompt>,
        teacher: &mut Lazy<'_>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<TeacherArtifact> {
        // Before the teacher is loaded.
        if let Some(artifact) = open_recorded(self.root, spec)? {
            artifact.check_prompts(prompts.iter().map(|prompt| prompt.id.as_str()))?;
            return Ok(artifact);
        }
        let inputs: Vec<PromptInput<'_>> = prompts
            .into_iter()
            .map(|prompt| PromptInput {
                prompt_id: &prompt.id,
                system: &prompt.system,
                user: &prompt.user,
                label: prompt.label,
            })
            .collect();
        open_or_record(self.root, spec, teacher.get(&spec.model)?, &inputs, progress)
    }

    fn spec(&self, info: &SubjectInfo, suite: &str, columns: Columns) -> ArtifactSpec {
        ArtifactSpec {
            model: info.clone(),
            suite: suite.to_owned(),
            max_new_tokens: self.config.max_new_tokens,
            columns,
            settings: BTreeMap::from([("compute".to_owned(), Value::from(self.config.teacher_compute.as_str()))]),
        }
    }

    /// Measures the student on whatever no earlier, interrupted call has measured. `clock` gives seconds from any start.
    ///
    /// # Errors
    /// [`Error::Incomparable`] for a student of another architecture or tokenizer, [`Error::Subject`],
    /// [`Error::SubjectContract`], [`Error::Job`].
    pub fn measure_student(
        &self,
        teacher: &TeacherSide,
        student: &mut dyn Subject,
        clock: &mut dyn FnMut() -> f64,
        progress: OnProgress<'_>,
    ) -> Result<StudentSide> {
        let info = student.info().clone();
        check_comparable(&teacher.info, &info)?;
        let mut pass = |artifact: &TeacherArtifact, prompts: &[&Prompt], stage| {
            let manifest = self.journal_manifest(artifact, &info, prompts);
            let mut journal = StudentJournal::open(self.root, &manifest)?;
            journal.check_order(prompts.iter().map(|prompt| prompt.id.as_str()))?;
            progress(stage, journal.len(), prompts.len());
            for (i, prompt) in prompts.iter().enumerate().skip(journal.len()) {
                let start = clock();
                let record = measure::student(artifact, student, prompt, self.config.max_new_tokens)?;
                journal.append(&record, (clock() - start).max(0.0))?;
                progress(stage, i + 1, prompts.len());
            }
            Ok::<_, Error>(journal)
        };
        let base = pass(&teacher.base, &self.base_prompts(), Stage::Student)?;
        let perturbed = match (&self.perturbed, &teacher.perturbed) {
            (Some(perturbed), Some(artifact)) => {
                let prompts: Vec<&Prompt> = perturbed.touched.iter().map(|&i| &perturbed.suite.prompts()[i]).collect();
                Some(pass(artifact, &prompts, Stage::StudentPerturbed)?)
            }
            _ => None,
        };
        Ok(StudentSide { base, perturbed, info })
    }

    /// What the units of a journal are made from.
    fn journal_manifest(&self, artifact: &TeacherArtifact, student: &SubjectInfo, prompts: &[&Prompt]) -> Value {
        let mut ids = blake3::Hasher::new();
        for prompt in prompts {
            ids.update(&(prompt.id.len() as u64).to_le_bytes());
            ids.update(prompt.id.as_bytes());
        }
        json!({
            "journal": 1,
            "teacher": artifact.spec().manifest(),
            "student": student.id,
            "compute": self.config.compute,
            "prompts": ids.finalize().to_string(),
        })
    }

    /// Computes the report and writes the trace.
    ///
    /// # Errors
    /// Suites and figures that decide nothing ([`Error::OneSided`], [`Error::TooFewPrompts`], [`Error::TooFewSamples`]),
    /// damaged recordings, a disk that refuses.
    pub fn report(
        &self,
        teacher: &TeacherSide,
        student: &StudentSide,
        trace: Option<&mut TraceWriter>,
    ) -> Result<GateReport> {
        assemble::report(self, teacher, student, trace)
    }

    /// What is wrong with each of the prompts that were run; for a part of a suite, which decides nothing.
    ///
    /// # Errors
    /// Damaged recordings.
    pub fn check_prompts(&self, teacher: &TeacherSide, student: &StudentSide) -> Result<Vec<PromptReport>> {
        assemble::check_prompts(self, teacher, student)
    }

    pub(super) fn gate_config(&self) -> GateConfig {
        GateConfig { min_prompts_per_label: self.config.thresholds.min_samples, ..GateConfig::default() }
    }

    /// What decides, next to the models and the suite.
    #[must_use]
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

/// What is recorded with less evidence: stability is about answers and routes alone.
fn bare(columns: Columns) -> Columns {
    Columns { scores: false, router_inputs: false, final_hidden: false, logits: LogitsAt::Nowhere, ..columns }
}

/// Both models must see the same tokens and have the same layers.
fn check_comparable(teacher: &SubjectInfo, student: &SubjectInfo) -> Result<()> {
    let differ = |what, teacher: String, student: String| Err(Error::Incomparable { what, teacher, student });
    if teacher.moe_layers != student.moe_layers {
        return differ(
            "layers with a router",
            format!("{:?}", teacher.moe_layers),
            format!("{:?}", student.moe_layers),
        );
    }
    for (what, t, s) in [
        ("number of experts", teacher.n_experts, student.n_experts),
        ("number of experts per token", teacher.top_k, student.top_k),
        ("vocabulary", teacher.vocab_size, student.vocab_size),
        ("hidden width", teacher.hidden, student.hidden),
    ] {
        if t != s {
            return differ(what, t.to_string(), s.to_string());
        }
    }
    Ok(())
}

/// A teacher that is loaded when it is needed.
struct Lazy<'a> {
    load: &'a mut dyn FnMut() -> std::result::Result<Box<dyn Subject>, ModelError>,
    loaded: Option<Box<dyn Subject>>,
}

impl Lazy<'_> {
    fn get(&mut self, expected: &SubjectInfo) -> Result<&mut dyn Subject> {
        if self.loaded.is_none() {
            let subject = (self.load)().map_err(|source| Error::TeacherNotLoaded { source })?;
            if subject.info().id != expected.id {
                let (got, want) = (subject.info().id.clone(), expected.id.clone());
                return Err(Error::TeacherNotLoaded { source: format!("it is model {got}, not {want}").into() });
            }
            self.loaded = Some(subject);
        }
        match &mut self.loaded {
            Some(subject) => Ok(&mut **subject),
            None => Err(Error::TeacherNotLoaded { source: "it is not there".into() }),
        }
    }
}
