//! A run that is cut into shares of its prompts, and the run that all shares give together.
//!
//! ```text
//! a unit, one per prompt:   {"teacher":{entry of the recording},"student":{head of the measurement}}\n
//!                           the columns of the recording, the columns of the measurement
//! ```
//! A share records its teacher below a key of its own, so that it needs the prompts of no other share.
//!
//! **Invariant:** joined shares give the recording of the run that was not cut, byte for byte, and its report.

use gguf_bitnet::Shard;
use serde::{Deserialize, Serialize};

use super::error::RunError;
use super::gate_run::GateRun;
use super::measure::{StudentSide, check_comparable};
use super::teacher::TeacherSide;
use crate::model::SubjectInfo;
use crate::records::artifact::{ArtifactSpec, ArtifactWriter, PromptEntry, TeacherArtifact, open_recorded};
use crate::records::{Head, RecordError, StudentJournal, StudentRecord};
use crate::suite::Prompt;
use crate::{Error, Result};

/// The first line of a unit.
#[derive(Serialize, Deserialize)]
struct UnitLine {
    teacher: PromptEntry,
    student: Head,
}

/// A unit of one prompt.
struct Unit<'a> {
    entry: PromptEntry,
    /// The columns of the teacher's recording.
    block: &'a [u8],
    student: StudentRecord,
}

/// Reads the bytes of a unit.
type ReadUnit<'a> = &'a mut dyn FnMut(usize) -> gguf_bitnet::Result<Vec<u8>>;

impl GateRun<'_> {
    /// Records and measures the prompts of one share only, without perturbation. The units of the share are the prompts
    /// `shard.units(n)` of a suite of `n`.
    #[must_use]
    pub fn share(mut self, shard: Shard) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.suite.identity().as_bytes()).update(shard.to_string().as_bytes());
        self.share = Some(hasher.finalize().to_string());
        self.chosen = Some(shard.units(self.suite.prompts().len()).collect());
        self.perturbed = None;
        self
    }

    /// Identity of the prompts that the teacher is recorded on.
    pub(super) fn recorded_suite(&self) -> &str {
        self.share.as_deref().unwrap_or_else(|| self.suite.identity())
    }

    /// The unit of prompt number `at` of a share that was recorded and measured.
    ///
    /// # Errors
    /// Damaged recordings.
    pub fn unit(&self, teacher: &TeacherSide, student: &StudentSide, at: usize) -> Result<Vec<u8>> {
        let place = teacher.base.place_of(self.chosen_prompts()[at])?;
        let (head, measured) = student.base.read(at)?.encode();
        let line = UnitLine { teacher: teacher.base.prompts()[place].clone(), student: head };
        let mut unit = serde_json::to_vec(&line).map_err(|error| damaged(teacher, &error))?;
        unit.push(b'\n');
        unit.extend(teacher.base.block(place)?);
        unit.extend(measured);
        Ok(unit)
    }

    /// The recordings and measurements of all shares, whose units `read` gives. A recording that is there already is used
    /// again after it was compared.
    ///
    /// # Errors
    /// [`RunError::Unit`] for a unit that does not fit its prompt or the models, those of `read`, and a disk that fails.
    pub fn join(
        &self,
        teacher: &SubjectInfo,
        student: &SubjectInfo,
        read: ReadUnit<'_>,
    ) -> Result<(TeacherSide, StudentSide)> {
        check_comparable(teacher, student)?;
        let spec = self.spec(teacher, self.suite.identity(), self.config.columns);
        let prompts: Vec<&Prompt> = self.suite.prompts().iter().collect();
        let base = self.join_recordings(&spec, &prompts, read)?;
        let manifest = self.journal_manifest(&base, student, &prompts);
        let mut journal = StudentJournal::open(self.root, &manifest)?;
        journal.check_order(prompts.iter().map(|prompt| prompt.id.as_str()))?;
        for (unit, prompt) in prompts.iter().enumerate().skip(journal.len()) {
            let bytes = read(unit)?;
            let record = parse(&bytes, unit, prompt)?.student;
            check_shape(&record, &base, unit)?;
            journal.append(&record, 0.0)?;
        }
        let teacher = TeacherSide { base, perturbed: None, reused: false, info: teacher.clone() };
        Ok((teacher, StudentSide { base: journal, perturbed: None, info: student.clone() }))
    }

    fn join_recordings(&self, spec: &ArtifactSpec, prompts: &[&Prompt], read: ReadUnit<'_>) -> Result<TeacherArtifact> {
        if let Some(artifact) = open_recorded(self.root, spec)? {
            artifact.check_prompts(prompts.iter().map(|prompt| prompt.id.as_str()))?;
            for (unit, prompt) in prompts.iter().enumerate() {
                let bytes = read(unit)?;
                if artifact.block(unit)? != parse(&bytes, unit, prompt)?.block {
                    return Err(wrong(unit, &prompt.id, "the folder holds another recording of it"));
                }
            }
            return Ok(artifact);
        }
        let mut writer = ArtifactWriter::open(self.root, spec)?;
        let done = writer.done().count();
        for (unit, prompt) in prompts.iter().enumerate().skip(done) {
            let bytes = read(unit)?;
            let Unit { entry, block, .. } = parse(&bytes, unit, prompt)?;
            writer.append_block(&entry, block)?;
        }
        writer.finish()
    }
}

/// Takes a unit apart.
fn parse<'a>(bytes: &'a [u8], unit: usize, prompt: &Prompt) -> Result<Unit<'a>> {
    let cut = |what| move || wrong(unit, &prompt.id, what);
    let end = bytes.iter().position(|&byte| byte == b'\n').ok_or_else(cut("it has no first line"))?;
    let (line, columns) = (&bytes[..end], &bytes[end + 1..]);
    let UnitLine { teacher: entry, student: head } =
        serde_json::from_slice(line).map_err(|_| wrong(unit, &prompt.id, "its first line is damaged"))?;
    let parts = entry.block_bytes().and_then(|bytes| columns.split_at_checked(bytes));
    let (block, measured) = parts.ok_or_else(cut("its recording is cut off"))?;
    let student = StudentRecord::decode(&head, measured).ok_or_else(cut("its measurement is cut off"))?;
    match entry.prompt_id == prompt.id && student.prompt_id == prompt.id {
        true => Ok(Unit { entry, block, student }),
        false => Err(wrong(unit, &prompt.id, "it is of another prompt")),
    }
}

/// The tables of a measurement must have the shape of the recording's.
fn check_shape(record: &StudentRecord, base: &TeacherArtifact, unit: usize) -> Result<()> {
    let (spec, tokens) = (base.spec(), base.prompts()[unit].tokens);
    let fits = |table: &crate::model::RoutingTable| {
        (table.n, table.top_k, table.n_layers()) == (tokens, spec.model.top_k, spec.model.moe_layers.len())
            && table.defect(spec.model.n_experts).is_none()
    };
    let tables = std::iter::once(&record.routing).chain(&record.local).all(fits);
    match tables && record.coherence.as_ref().is_none_or(|cosines| cosines.len() == tokens) {
        true => Ok(()),
        false => Err(wrong(unit, &record.prompt_id, "its tables have another shape than the recording")),
    }
}

fn wrong(unit: usize, prompt_id: &str, what: &'static str) -> Error {
    RunError::Unit { unit, prompt_id: prompt_id.to_owned(), what }.into()
}

fn damaged(teacher: &TeacherSide, error: &serde_json::Error) -> Error {
    let (path, reason) = (teacher.base.path().to_owned(), error.to_string());
    Error::Records(RecordError::Journal { path, reason })
}
