//! The first step: the teacher's recordings.

use std::collections::BTreeMap;

use serde_json::Value;

use super::error::RunError;
use super::gate_run::{GateRun, OnProgress, Stage};
use crate::Result;
use crate::model::{ModelError, Subject, SubjectInfo};
use crate::records::artifact::{ArtifactSpec, Columns, LogitsAt, TeacherArtifact, open_or_record, open_recorded};
use crate::suite::Prompt;

/// The recordings of a teacher.
#[derive(Debug)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct TeacherSide {
    pub base: TeacherArtifact,
    /// On the prompts that lost evidence.
    pub perturbed: Option<TeacherArtifact>,
    /// Whether everything was there before.
    pub reused: bool,
    pub(super) info: SubjectInfo,
}

impl GateRun<'_> {
    /// Opens the teacher's recordings, or makes them with the model that `load` gives; it is called at most once, and not
    /// at all when the recordings are there.
    ///
    /// # Errors
    /// The errors of [`open_or_record`], and those of loading the teacher.
    pub fn record_teacher(
        &self,
        info: &SubjectInfo,
        load: &mut dyn FnMut() -> std::result::Result<Box<dyn Subject>, ModelError>,
        progress: OnProgress<'_>,
    ) -> Result<TeacherSide> {
        let mut teacher = OnDemand { load, loaded: None };
        let spec = self.spec(info, self.recorded_suite(), self.config.columns);
        let prompts = match self.share {
            None => self.suite.prompts().iter().collect(),
            Some(_) => self.chosen_prompts(),
        };
        let base = self.artifact(&spec, &prompts, &mut teacher, &mut |done, n| progress(Stage::Teacher, done, n))?;
        let mut perturbed = None;
        if let Some(less) = &self.perturbed {
            let mut progress = |done, n| progress(Stage::TeacherPerturbed, done, n);
            let spec = self.spec(info, less.suite.identity(), routing_alone(self.config.columns));
            perturbed = Some(self.artifact(&spec, &less.touched_prompts(), &mut teacher, &mut progress)?);
        }
        Ok(TeacherSide { base, perturbed, reused: teacher.loaded.is_none(), info: info.clone() })
    }

    fn artifact(
        &self,
        spec: &ArtifactSpec,
        prompts: &[&Prompt],
        teacher: &mut OnDemand<'_>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<TeacherArtifact> {
        // Before the teacher is loaded.
        if let Some(artifact) = open_recorded(self.root, spec)? {
            artifact.check_prompts(prompts.iter().map(|prompt| prompt.id.as_str()))?;
            return Ok(artifact);
        }
        open_or_record(self.root, spec, teacher.get(&spec.model)?, prompts, progress)
    }

    pub(super) fn spec(&self, info: &SubjectInfo, suite: &str, columns: Columns) -> ArtifactSpec {
        ArtifactSpec {
            model: info.clone(),
            suite: suite.to_owned(),
            max_new_tokens: self.config.max_new_tokens,
            columns,
            settings: BTreeMap::from([("compute".to_owned(), Value::from(self.config.teacher_compute.as_str()))]),
        }
    }
}

/// The columns that are recorded with less evidence: stability is about answers and routes alone.
fn routing_alone(columns: Columns) -> Columns {
    Columns { scores: false, router_inputs: false, final_hidden: false, logits: LogitsAt::Nowhere, ..columns }
}

/// A teacher that is loaded when it is needed.
struct OnDemand<'a> {
    load: &'a mut dyn FnMut() -> std::result::Result<Box<dyn Subject>, ModelError>,
    loaded: Option<Box<dyn Subject>>,
}

impl OnDemand<'_> {
    fn get(&mut self, expected: &SubjectInfo) -> Result<&mut dyn Subject, RunError> {
        let subject = match self.loaded.take() {
            Some(subject) => subject,
            None => (self.load)().map_err(|source| RunError::TeacherNotLoaded { source })?,
        };
        let (got, want) = (&subject.info().id, &expected.id);
        if got != want {
            return Err(RunError::TeacherNotLoaded { source: format!("it is model {got}, not {want}").into() });
        }
        Ok(&mut **self.loaded.insert(subject))
    }
}
