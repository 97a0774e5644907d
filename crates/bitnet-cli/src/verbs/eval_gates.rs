//! `bitnet eval-gates`: decides whether a student passes the behavioural gates.

mod judging;
mod measured;
mod model;
mod options;
mod part;
mod print;
mod repair;
mod stamp;

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use behavior_eval::records::trace::trace_file_name;
use behavior_eval::report::{self, Baseline, GateReport};
use behavior_eval::run::GateRun;
use behavior_eval::suite::Suite;
use gguf_bitnet::link_target;
use rlm_refine::lessons::MemoryDistiller;
use rlm_refine::measure::subject_info;
use rlm_refine::policy::{Policy, PolicyStore};
use rlm_refine::train::refuse_taught;

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
    repair::check(&args, &student, &teacher)?;
    refuse_taught(&student.files, suite.identity())?;
    let suite_name = args.suite.file_stem().map_or_else(|| "suite".into(), |name| name.to_string_lossy().into_owned());
    let info = subject_info(&student.files, student.id.clone())?;
    let folder = link_target(&args.report.clone().unwrap_or_else(|| default_folder(&info.name, &suite_name)))?;
    let artifacts = link_target(&args.artifacts)?;
    let run = GateRun::new(&suite, &suite_name, &artifacts, config)?;
    if let Some((shard, part)) = args.shard.given() {
        let task = Task { args: &args, shard, part, suite: &suite, suite_name: &suite_name };
        return part::write(&task, run, [&teacher, &student]);
    }
    let run = match args.filter_failing {
        false => run,
        true => match of_failing(run, &folder, &suite)? {
            Some(run) => run,
            None => return output::line("The last report has no failing prompt: there is nothing to run again."),
        },
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
    let judge = |measured: &Measured, before: Option<(&GateReport, Vec<String>)>, folder: &Path| {
        let mut report = measured.report(&args, &run, &suite_name)?;
        if let Some((before, steps)) = before {
            report.set_repaired(before, steps);
        }
        if let Some(baseline) = &baseline {
            report.set_baseline(baseline.compare(&report)?);
        }
        report::write_files(&mut report, folder)?;
        keep_lessons(&args, &teacher.id, &report)?;
        anyhow::Ok(report)
    };
    let (mut report, mut measured) = (judge(&measured, None, &folder)?, measured);
    if let Some((model, steps)) = repair::repaired(&args, &suite, &report, [&student, &teacher])? {
        if !args.json {
            print::report(&report, false)?;
        }
        let again = Measured::new(&args, &run, &teacher, &model)?;
        report = judge(&again, Some((&report, steps)), &folder.join("repaired"))?;
        std::mem::replace(&mut measured, again).student.discard()?;
    }
    let printed = print::report(&report, args.json);
    if args.stamp {
        stamp::write(&report, student.files)?;
    }
    // This comes last, so that after a failure above the same command finds the answers of the student again.
    measured.student.discard()?;
    // A failed gate decides the exit code, even where standard output was closed.
    if report.passed() { printed } else { Err(GateFailed.into()) }
}

/// The run on the prompts that failed in the last report in `folder`; `None` where all passed.
fn of_failing<'a>(run: GateRun<'a>, folder: &Path, suite: &Suite) -> Result<Option<GateRun<'a>>> {
    let path = folder.join("report.json");
    let last = read_report(&path)?;
    if last.suite() != suite.identity() {
        return Err(anyhow!("{} is about another suite: name its folder with --report", path.display()));
    }
    match last.failing_prompts() {
        failing if failing.is_empty() => Ok(None),
        failing => Ok(Some(run.only(&failing)?)),
    }
}

/// Adds what a report teaches to the store of lessons, if one is named.
fn keep_lessons(args: &Args, teacher: &str, report: &GateReport) -> Result<()> {
    let Some(path) = &args.lessons else { return Ok(()) };
    let store = PolicyStore::open(path)?;
    let mut distiller = MemoryDistiller::new(store.lessons()?.remove(teacher).unwrap_or_default());
    distiller.add_gates(report);
    Ok(store.append(teacher, &distiller.into_lessons().into_iter().map(Policy::of_lesson).collect::<Vec<_>>())?)
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
