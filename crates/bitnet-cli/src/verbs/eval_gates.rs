//! `bitnet eval-gates`: may this student be called ready?

mod options;
mod print;
mod stamp;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Result, anyhow};
use behavior_eval::model::{ModelError, Subject};
use behavior_eval::records::trace::{TraceWriter, trace_file_name, trace_path};
use behavior_eval::report::{self, Baseline, GateReport};
use behavior_eval::run::{GateRun, Stage};
use behavior_eval::suite::Suite;
use gguf_bitnet::write_atomic;
use indicatif::ProgressBar;
use moe_runtime::ModelFiles;

use crate::model;
use crate::output::{self, GateFailed, Usage};
use crate::progress::{Unit, bar};
use crate::subject::{ModelSubject, identity, subject_info};
use crate::utc::Utc;

pub(crate) use options::Args;
use options::{TEACHER, config, read_text};

/// A model that is open, and which it is.
struct Named {
    files: ModelFiles,
    id: String,
}

impl Named {
    fn open(spec: &str, what: &'static str) -> Result<Self> {
        let files = model::open(spec)?;
        let bar = bar(0, Unit::Bytes, what);
        let id = identity(&files, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        })?;
        bar.finish_and_clear();
        Ok(Self { files, id })
    }
}

/// Runs the verb.
pub(crate) fn execute(args: Args) -> Result<()> {
    let config = config(&args)?;
    let suite = Suite::open(&args.suite, &args.corpus)?;
    let baseline = args.baseline.as_deref().map(read_report).transpose()?;
    if let (Some(baseline), Some(path)) = (&baseline, &args.baseline)
        && baseline.suite() != suite.identity()
    {
        return Err(anyhow!("{} is about another suite: compare reports on the same prompts", path.display()));
    }
    let student = Named::open(&args.student, "reading the student")?;
    if args.stamp {
        stamp::check(&student.files)?;
    }
    let teacher = Named::open(&args.teacher, "reading the teacher")?;
    let suite_name = args.suite.file_stem().map_or_else(|| "suite".into(), |name| name.to_string_lossy().into_owned());
    let info = subject_info(&student.files, student.id.clone())?;
    let folder = args.report.clone().unwrap_or_else(|| default_folder(&info.name, &suite_name));
    let run = GateRun::new(&suite, &suite_name, &args.artifacts, config)?;
    let run = if args.filter_failing {
        let last = read_report(&folder.join("report.json"))?;
        if last.suite() != suite.identity() {
            return Err(anyhow!("{} is about another suite", folder.join("report.json").display()));
        }
        let failing = last.failing_prompts();
        if failing.is_empty() {
            return output::line(
                "Nothing was wrong with any prompt in the last report: there is nothing to run again.",
            );
        }
        run.only(&failing)?
    } else {
        run
    };
    if let Some(baseline) = &baseline {
        baseline.check(suite.identity(), &teacher.id, &run.settings())?;
    }
    std::fs::create_dir_all(&folder).map_err(|error| anyhow!("cannot make {}: {error}", folder.display()))?;
    let measured = Measured::new(&args, &run, &teacher, &student)?;
    if args.filter_failing {
        let checks = run.check_prompts(&measured.teacher, &measured.student)?;
        measured.student.discard()?;
        // It decides nothing, whoever reads it.
        let _ = print::checks(&checks, suite.prompts().len(), args.json);
        return Err(GateFailed.into());
    }
    let mut report = measured.report(&args, &run, &suite_name)?;
    if let Some(baseline) = &baseline {
        report.set_baseline(baseline.compare(&report)?);
    }
    write_files(&mut report, &folder)?;
    let printed = print::report(&report, args.json);
    if args.stamp {
        stamp::write(&report, student.files)?;
    }
    // Last: whatever failed before is done again without the student.
    measured.student.discard()?;
    // A reader who left early does not turn a failed gate into a pass.
    if report.passed() { printed } else { Err(GateFailed.into()) }
}

/// `eval/reports/STUDENT_SUITE`, made of characters that every file system takes.
fn default_folder(student: &str, suite: &str) -> PathBuf {
    let name = trace_file_name(student, suite, "t");
    Path::new("eval/reports").join(name.strip_suffix("_t.jsonl").unwrap_or(&name))
}

/// A report as a baseline.
fn read_report(path: &Path) -> Result<Baseline> {
    let text = read_text(path, behavior_eval::report::MAX_BYTES)?;
    Baseline::parse(&text).map_err(|error| anyhow!("{}: {error}", path.display()))
}

/// Both models have done their part.
struct Measured {
    teacher: behavior_eval::run::TeacherSide,
    student: behavior_eval::run::StudentSide,
    threads: usize,
}

impl Measured {
    /// Runs the teacher where its recordings are missing, then the student; one of them is in memory at a time.
    fn new(args: &Args, run: &GateRun<'_>, teacher: &Named, student: &Named) -> Result<Self> {
        let pool = args.threads.pool()?;
        let threads = pool.threads();
        let mut bars = Bars::default();
        let mut load = || -> Result<Box<dyn Subject>, ModelError> {
            let (act, kv) = TEACHER;
            Ok(Box::new(ModelSubject::load(&teacher.files, teacher.id.clone(), act, kv, pool.clone())?))
        };
        let info = subject_info(&teacher.files, teacher.id.clone())?;
        let recorded = run
            .record_teacher(&info, &mut load, &mut |stage, done, n| bars.show(stage, done, n))
            .map_err(|error| blame(error, &[&teacher.files]))?;
        let mut subject = ModelSubject::load(&student.files, student.id.clone(), args.act, args.kv, pool.clone())?;
        let start = Instant::now();
        let mut clock = || start.elapsed().as_secs_f64();
        let measured = run
            .measure_student(&recorded, &mut subject, &mut clock, &mut |stage, done, n| bars.show(stage, done, n))
            .map_err(|error| blame(error, &[&student.files]))?;
        bars.finish();
        Ok(Self { teacher: recorded, student: measured, threads })
    }

    /// Computes the report and writes the trace beside nobody else's.
    fn report(&self, args: &Args, run: &GateRun<'_>, suite_name: &str) -> Result<GateReport> {
        let now = Utc::from(SystemTime::now());
        let name = &self.student.info().name;
        // Two runs within a second have two traces.
        let path = (0..1000)
            .map(|n| if n == 0 { now.compact() } else { format!("{}-{n}", now.compact()) })
            .map(|stamp| trace_path(Path::new(""), name, suite_name, &stamp))
            .find(|path| !path.exists())
            .ok_or_else(|| anyhow!("eval/traces holds a thousand traces of this second"))?;
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
            ("student".to_owned(), args.student.clone()),
            ("suite file".to_owned(), shown(&args.suite)),
            ("corpus file".to_owned(), shown(&args.corpus)),
            ("teacher's recording".to_owned(), shown(self.teacher.base.path())),
            ("trace".to_owned(), shown(&trace)),
        ]);
        Ok(report)
    }
}

/// Names the tensor behind numbers that are none.
fn blame(error: behavior_eval::Error, models: &[&ModelFiles]) -> anyhow::Error {
    match error {
        behavior_eval::Error::NotFinite { .. } | behavior_eval::Error::SubjectContract { .. } => {
            models.iter().find_map(|files| model::blame(files))
        }
        _ => None,
    }
    .unwrap_or_else(|| error.into())
}

/// Writes the four formats, each in one step.
fn write_files(report: &mut GateReport, folder: &Path) -> Result<()> {
    for name in ["report.html", "report.json", "report.junit.xml", "report.md"] {
        report.run.files.insert(name.to_owned(), folder.join(name).display().to_string());
    }
    let texts = [
        ("report.html", report::html(report)),
        ("report.junit.xml", report::junit(report)),
        ("report.md", report::markdown(report)),
        ("report.json", report.json()),
    ];
    for (name, text) in texts {
        write_atomic(&folder.join(name), text.as_bytes())?;
    }
    Ok(())
}

/// One bar per stage.
#[derive(Default)]
struct Bars(Vec<(Stage, ProgressBar)>);

impl Bars {
    fn show(&mut self, stage: Stage, done: usize, n: usize) {
        if self.0.last().is_none_or(|(last, _)| *last != stage) {
            self.finish();
            let what = match stage {
                Stage::Teacher => "teacher",
                Stage::TeacherPerturbed => "teacher, less evidence",
                Stage::Student => "student",
                Stage::StudentPerturbed => "student, less evidence",
            };
            self.0.push((stage, bar(n as u64, Unit::Items, what)));
        }
        if let Some((_, bar)) = self.0.last() {
            bar.set_position(done as u64);
        }
    }

    fn finish(&self) {
        if let Some((_, bar)) = self.0.last() {
            bar.finish_and_clear();
        }
    }
}

/// A command line that asks for what this student cannot have.
fn usage(text: String) -> anyhow::Error {
    Usage(text).into()
}
