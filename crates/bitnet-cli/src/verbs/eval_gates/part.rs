//! A share of the prompts in a part, and the report that all parts give together.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use behavior_eval::model::SubjectInfo;
use behavior_eval::records::trace::TraceWriter;
use behavior_eval::report;
use behavior_eval::run::GateRun;
use behavior_eval::suite::Suite;
use gguf_bitnet::{Cut, Parts, Shard, UnitJob, UnitResult};
use rlm_refine::measure::subject_info;
use serde::{Deserialize, Serialize};

use super::judging::Judging;
use super::measured::Measured;
use super::model::IdentifiedModel;
use super::options::Args;
use super::print;
use crate::exit::GateFailed;
use crate::output::{self, Progress, Utc};

/// The name of this job in manifests.
pub(in crate::verbs) const JOB: &str = "gates";

/// Most bytes of a file of the suite that a part takes.
const MAX_TEXT_BYTES: u64 = 24 << 20;

/// The inputs and settings of a run. The texts of the suite are in it, so that parts are merged without the files.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    job: String,
    version: u32,
    teacher: SubjectInfo,
    student: SubjectInfo,
    suite: String,
    suite_name: String,
    judging: Judging,
    texts: Texts,
}

/// The bytes of the files.
#[derive(Serialize, Deserialize)]
struct Texts {
    suite: String,
    corpus: String,
}

/// A share and the file of its part.
pub(super) struct Task<'a> {
    pub(super) args: &'a Args,
    pub(super) shard: Shard,
    pub(super) part: &'a Path,
    pub(super) suite: &'a Suite,
    pub(super) suite_name: &'a str,
}

/// Records the teacher and measures the student on the prompts of a share, and writes both to the part.
pub(super) fn write(task: &Task<'_>, run: GateRun<'_>, models: [&IdentifiedModel; 2]) -> Result<()> {
    let Task { args, shard, part, suite, suite_name } = *task;
    let [teacher, student] = models;
    let manifest = serde_json::to_value(Manifest {
        job: JOB.to_owned(),
        version: 1,
        teacher: subject_info(&teacher.files, teacher.id.clone())?,
        student: subject_info(&student.files, student.id.clone())?,
        suite: suite.identity().to_owned(),
        suite_name: suite_name.to_owned(),
        judging: Judging::of(args)?,
        texts: texts(args, suite)?,
    })?;
    let cut = Cut { units: suite.prompts().len(), shard: Some(shard) };
    let mut job = UnitJob::open(part, &manifest, cut, args.force)?;
    let mut measured = None;
    if job.next_unit().is_some() {
        let run = run.share(shard);
        let Measured { teacher, student, .. } = Measured::new(args, &run, teacher, student)?;
        while job.next_unit().is_some() {
            let (at, _) = job.progress();
            job.append(&UnitResult { bytes: run.unit(&teacher, &student, at)?, ..UnitResult::default() })?;
        }
        measured = Some(student);
    }
    job.finish()?;
    // This comes last, so that after a failure above the same command finds the answers of the student again.
    measured.map_or(Ok(()), behavior_eval::run::StudentSide::discard)?;
    output::line(format_args!("wrote {}", part.display()))
}

/// The texts of the suite, which give the same suite again.
fn texts(args: &Args, suite: &Suite) -> Result<Texts> {
    let read = |path: &Path| gguf_bitnet::read_text(path, MAX_TEXT_BYTES);
    let texts = Texts { suite: read(&args.suite)?, corpus: read(&args.corpus)? };
    match Suite::parse(&texts.suite, &texts.corpus)?.identity() == suite.identity() {
        true => Ok(texts),
        false => {
            bail!("{}: a part holds plain text; save suite and corpus as UTF-8 without a mark", args.suite.display())
        }
    }
}

/// Writes the report of all parts, the trace and the teacher's recording into the folder `out`.
pub(in crate::verbs) fn join(parts: &Parts, out: &Path, force: bool) -> Result<()> {
    if out.exists() && !force {
        bail!("{} already exists: choose another name or pass --force to replace its files", out.display());
    }
    let manifest = Manifest::deserialize(parts.manifest()).map_err(|error| {
        anyhow!("the parts are of another version of this program ({error}): merge them with that one")
    })?;
    let suite = Suite::parse(&manifest.texts.suite, &manifest.texts.corpus)?;
    if suite.identity() != manifest.suite || suite.prompts().len() != parts.units() {
        bail!("the suite in the parts is not the one that they name: run all shards again");
    }
    let artifacts = out.join("artifacts");
    let config = manifest.judging.config(Path::new("the refusal signals"))?;
    let run = GateRun::new(&suite, &manifest.suite_name, &artifacts, config)?;
    let progress = Progress::items("prompts");
    let mut read = |unit| {
        progress.show(unit as u64, parts.units() as u64);
        parts.read(unit)
    };
    let (teacher, student) = run.join(&manifest.teacher, &manifest.student, &mut read)?;
    drop(progress);
    let trace = out.join("trace.jsonl");
    if force && trace.is_file() {
        std::fs::remove_file(&trace).map_err(|error| anyhow!("cannot remove {}: {error}", trace.display()))?;
    }
    let mut writer = TraceWriter::create(&trace)?;
    let mut report = run.report(&teacher, &student, Some(&mut writer))?;
    writer.finish()?;
    report.run.finished = Utc::from(std::time::SystemTime::now()).to_string();
    report.run.files.insert("trace".to_owned(), trace.display().to_string());
    report.run.files.insert("teacher's recording".to_owned(), teacher.base.path().display().to_string());
    report::write_files(&mut report, out)?;
    let printed = print::report(&report, false);
    student.discard()?;
    if report.passed() { printed } else { Err(GateFailed.into()) }
}
