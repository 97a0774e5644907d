//! The recordings of both models on a suite, and the report that they give.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Result, anyhow};
use behavior_eval::model::{ModelError, Subject, SubjectError};
use behavior_eval::records::trace::{TraceWriter, trace_path};
use behavior_eval::report::GateReport;
use behavior_eval::run::{GateRun, Stage, StudentSide, TeacherSide};
use moe_runtime::ModelFiles;
use rlm_refine::measure::{GroupReport, StreamedOptions, StreamedSubject, subject_info};
use tl_kernels::Pool;

use super::model::IdentifiedModel;
use super::options::{Args, TEACHER};
use crate::args::Act;
use crate::load;
use crate::output::{self, Progress, Utc, size};

/// The recordings of both models on the suite.
pub(super) struct Measured {
    pub(super) teacher: TeacherSide,
    pub(super) student: StudentSide,
    /// The file of the student, as a user names it.
    student_file: String,
    threads: usize,
}

impl Measured {
    /// Runs the teacher where its recordings are missing, then the student; one of them is in memory at a time.
    pub(super) fn new(
        args: &Args,
        run: &GateRun<'_>,
        teacher: &IdentifiedModel,
        student: &IdentifiedModel,
    ) -> Result<Self> {
        let pool = args.threads.pool()?;
        let threads = pool.threads();
        let mut progress = StageProgress::default();
        let allow_zero = args.zero.allow_zero;
        let options =
            |files: &ModelFiles, act: Act| load::options(files, Some(act.into()), None, allow_zero, pool.clone());
        let mut load = || -> Result<Box<dyn Subject>, ModelError> {
            let (act, kv) = TEACHER;
            if args.stream_teacher {
                return Ok(Box::new(streamed(args, &teacher.id, pool.clone())?));
            }
            Ok(Box::new(teacher.load(&options(&teacher.files, act), kv.into())?))
        };
        let info = subject_info(&teacher.files, teacher.id.clone())?;
        let recorded = run
            .record_teacher(&info, &mut load, &mut |stage, done, n| progress.show(stage, done, n))
            .map_err(|error| explain(error, &[&teacher.files]))?;
        let mut subject = student.load(&options(&student.files, args.act), args.kv.into())?;
        let start = Instant::now();
        let mut clock = || start.elapsed().as_secs_f64();
        let measured = run
            .measure_student(&recorded, &mut subject, &mut clock, &mut |stage, done, n| progress.show(stage, done, n))
            .map_err(|error| explain(error, &[&student.files]))?;
        Ok(Self { teacher: recorded, student: measured, student_file: student.spec.clone(), threads })
    }

    /// Computes the report and writes the trace to a file of its own.
    pub(super) fn report(&self, args: &Args, run: &GateRun<'_>, suite_name: &str) -> Result<GateReport> {
        let now = Utc::from(SystemTime::now());
        let name = &self.student.info().name;
        // Two runs within a second have two traces.
        let path = (0..1000)
            .map(|n| if n == 0 { now.compact() } else { format!("{}-{n}", now.compact()) })
            .map(|stamp| trace_path(Path::new(""), name, suite_name, &stamp))
            .find(|path| !path.exists())
            .ok_or_else(|| anyhow!("eval/traces holds a thousand traces of this second: run the command again"))?;
        let mut trace = TraceWriter::create(&path)?;
        let mut report = run.report(&self.teacher, &self.student, Some(&mut trace))?;
        let trace = trace.finish()?;
        let prompts = report.suite.prompts as f64;
        report.run.finished = now.to_string();
        report.run.seconds = self.student.seconds();
        report.run.seconds_per_prompt = self.student.seconds() / prompts.max(1.0);
        report.run.threads = self.threads;
        report.run.teacher_reused = self.teacher.reused;
        report.run.resumed_prompts = self.student.resumed();
        let shown = |path: &Path| path.display().to_string();
        report.run.files = BTreeMap::from([
            ("teacher".to_owned(), args.teacher.clone()),
            ("student".to_owned(), self.student_file.clone()),
            ("suite file".to_owned(), shown(&args.suite)),
            ("corpus file".to_owned(), shown(&args.corpus)),
            ("teacher's recording".to_owned(), shown(self.teacher.base.path())),
            ("trace".to_owned(), shown(&trace)),
        ]);
        Ok(report)
    }
}

/// The teacher with one layer in memory at a time.
fn streamed(args: &Args, id: &str, pool: Arc<Pool>) -> Result<StreamedSubject> {
    let (act, kv) = TEACHER;
    let options =
        StreamedOptions { pool, act_mode: act.into(), cache_type: kv.into(), memory_bytes: args.teacher_memory };
    let on_group = |group: &GroupReport| {
        output::note(format_args!(
            "group of {} prompts: {} passes over the layers, {} of weights",
            group.prompts,
            group.passes,
            size(group.weight_bytes)
        ));
    };
    Ok(StreamedSubject::open(load::open(&args.teacher)?, id.to_owned(), options, Box::new(on_group))?)
}

/// Names the damaged tensor behind numbers that are NaN or infinite.
fn explain(error: behavior_eval::Error, models: &[&ModelFiles]) -> anyhow::Error {
    match error {
        behavior_eval::Error::Subject(SubjectError::Contract { .. }) => {
            models.iter().find_map(|files| load::first_defect(files))
        }
        _ => None,
    }
    .unwrap_or_else(|| error.into())
}

/// The progress of the stage that runs now.
#[derive(Default)]
struct StageProgress(Option<(Stage, Progress)>);

impl StageProgress {
    fn show(&mut self, stage: Stage, done: usize, n: usize) {
        if self.0.as_ref().is_none_or(|(last, _)| *last != stage) {
            self.0 = Some((stage, Progress::items(stage.name())));
        }
        if let Some((_, progress)) = &self.0 {
            progress.show(done as u64, n as u64);
        }
    }
}
