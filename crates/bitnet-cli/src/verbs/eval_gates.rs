//! `bitnet eval-gates`: decides whether a student passes the behavioural gates.

mod judging;
mod measured;
mod model;
mod options;
mod part;
mod print;
mod stamp;

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use behavior_eval::records::trace::trace_file_name;
use behavior_eval::report::{self, Baseline};
use behavior_eval::run::GateRun;
use behavior_eval::suite::Suite;
use gguf_bitnet::link_target;
use rlm_refine::measure::subject_info;

use crate::exit::GateFailed;
use crate::{load, output};
use judging::config;
use measured::Measured;
use model::IdentifiedModel;
use part::Task;

pub(crate) use options::Args;
pub(super) use part::{JOB, join};

pub(crate) fn execute(args: Args) -> Result<()> {
    let config = config(&args)?;
    if let Some((_, part)) = args.shard.given() {
        gguf_bitnet::Job::check(part, args.force)?;
    }
    let suite = Suite::open(&args.suite, &args.corpus)?;
    let baseline = args.baseline.as_deref().map(read_report).transpose()?;
    if let (Some(baseline), Some(path)) = (&baseline, &args.baseline)
        && baseline.suite() != suite.identity()
    {
        return Err(anyhow!("{} is about another suite: give a --baseline on the same prompts", path.display()));
    }
    let student = IdentifiedModel::open(&args.student, "reading the student", args.zero.allow_zero)?;
    let student = student.with_adapters(&args.adapters)?;
    if args.stamp {
        stamp::check(&student.files)?;
    }
    let teacher = IdentifiedModel::open(&args.teacher, "reading the teacher", args.zero.allow_zero)?;
    let suite_name = args.suite.file_stem().map_or_else(|| "suite".into(), |name| name.to_string_lossy().into_owned());
    let info = subject_info(&student.files, student.id.clone())?;
    let folder = link_target(&args.report.clone().unwrap_or_else(|| default_folder(&info.name, &suite_name)))?;
    let artifacts = link_target(&args.artifacts)?;
    let run = GateRun::new(&suite, &suite_name, &artifacts, config)?;
    if let Some((shard, part)) = args.shard.given() {
        let task = Task { args: &args, shard, part, suite: &suite, suite_name: &suite_name };
        return part::write(&task, run, [&teacher, &student]);
    }
    let run = if args.filter_failing {
        let last = read_report(&folder.join("report.json"))?;
        if last.suite() != suite.identity() {
            return Err(anyhow!(
                "{} is about another suite: name its folder with --report",
                folder.join("report.json").display()
            ));
        }
        let failing = last.failing_prompts();
        if failing.is_empty() {
            return output::line("The last report has no failing prompt: there is nothing to run again.");
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
        // A closed standard output must not hide that there is no verdict.
        let _ = print::checks(&checks, suite.prompts().len(), args.json);
        return Err(GateFailed.into());
    }
    let mut report = measured.report(&args, &run, &suite_name)?;
    if let Some(baseline) = &baseline {
        report.set_baseline(baseline.compare(&report)?);
    }
    report::write_files(&mut report, &folder)?;
    let printed = print::report(&report, args.json);
    if args.stamp {
        stamp::write(&report, student.files)?;
    }
    // This comes last, so that after a failure above the same command finds the answers of the student again.
    measured.student.discard()?;
    // A failed gate decides the exit code, even where standard output was closed.
    if report.passed() { printed } else { Err(GateFailed.into()) }
}

/// `eval/reports/STUDENT_SUITE`, made of characters that every file system takes.
fn default_folder(student: &str, suite: &str) -> PathBuf {
    let name = trace_file_name(student, suite, "t");
    Path::new("eval/reports").join(name.strip_suffix("_t.jsonl").unwrap_or(&name))
}

/// Reads an earlier report.
fn read_report(path: &Path) -> Result<Baseline> {
    let text = load::read_at_most(path, report::MAX_BYTES)?;
    Baseline::parse(&text).map_err(|error| anyhow!("{}: {error}", path.display()))
}
