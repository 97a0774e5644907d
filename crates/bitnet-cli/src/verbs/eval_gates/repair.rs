//! `--repair`: the steps that a failed verdict asks for, on texts, and the student that comes of them.
//!
//! ```text
//! routing_agreement fails              routers fitted to the teacher's choices (ridge)
//! citations or refusals fail           scales, norms and shared experts trained towards the teacher
//! both                                 training, then routers
//! ```
//! **Invariant:** the student that failed stays as it is; the repaired one is another file. No window of a text that shares 64
//! tokens in a row with a prompt of the suite is learned from.

use anyhow::Result;
use behavior_eval::report::GateReport;
use behavior_eval::suite::Suite;
use rlm_refine::ptq::{Calibration, NamedText, WindowOptions};
use rlm_refine::train::{RefineProgress, Refiner, RouterMethod, TrainOptions};
use serde_json::json;

use super::model::IdentifiedModel;
use super::options::{Args, RepairArgs};
use crate::args::training::{RATE, STEP_WINDOWS, TEXT_TOKENS, WINDOW_TOKENS};
use crate::exit::UsageError;
use crate::load;
use crate::output::{self, Progress};

/// Refuses, before anything runs, a student that cannot be repaired.
pub(super) fn check(args: &Args, student: &IdentifiedModel, teacher: &IdentifiedModel) -> Result<()> {
    let Some(out) = &args.repair.repair else { return Ok(()) };
    if student.files.gguf().is_none_or(|file| file.n_parts() > 1) {
        let path = student.files.path().display();
        let sentence =
            format!("--repair writes a student of one GGUF file, and {path} is none: leave it out, or quantise first");
        return Err(UsageError::new(sentence).into());
    }
    if student.files.holds(out) || teacher.files.holds(out) {
        let sentence = format!("--repair: {} belongs to a model that is read: choose another name", out.display());
        return Err(UsageError::new(sentence).into());
    }
    gguf_bitnet::Job::check(out, true)?;
    Ok(())
}

/// The steps for the failed gates of a report.
struct Steps {
    trains: bool,
    fits_routers: bool,
}

impl Steps {
    fn of(report: &GateReport) -> Self {
        let mut failed = report.failures.iter().map(|failure| failure.gate.is_about_routers());
        let fits_routers = failed.clone().any(|is_about_routers| is_about_routers);
        Self { trains: failed.any(|is_about_routers| !is_about_routers), fits_routers }
    }

    fn options(&self, args: &RepairArgs) -> TrainOptions {
        let defaults = TrainOptions::default();
        TrainOptions {
            groups: if self.trains { defaults.groups.clone() } else { Vec::new() },
            steps: if self.trains { args.repair_tokens.div_ceil(STEP_WINDOWS * WINDOW_TOKENS) } else { 0 },
            windows_per_step: STEP_WINDOWS,
            lr: RATE,
            repair: self.fits_routers.then_some(RouterMethod::Ridge),
            ..defaults
        }
    }

    fn names(&self, tokens: u64) -> Vec<String> {
        let trained = self.trains.then(|| format!("trained towards the teacher on {tokens} tokens"));
        let fitted = self.fits_routers.then(|| "routers fitted to the teacher's choices".to_owned());
        trained.into_iter().chain(fitted).collect()
    }
}

/// Writes the repaired student and opens it; with it, the steps in words. `None` where no gate failed, or none is asked for.
pub(super) fn repaired(
    args: &Args,
    suite: &Suite,
    report: &GateReport,
    [student, teacher]: [&IdentifiedModel; 2],
) -> Result<Option<(IdentifiedModel, Vec<String>)>> {
    let Some(out) = args.repair.repair.as_ref().filter(|_| !report.failures.is_empty()) else { return Ok(None) };
    let steps = Steps::of(report);
    output::note(format_args!("note: {} gates failed; the repair goes to {}", report.failures.len(), out.display()));
    let pool = args.threads.pool()?;
    let windows = WindowOptions { window_tokens: WINDOW_TOKENS, max_tokens: TEXT_TOKENS, ..WindowOptions::default() };
    let texts = load::read_texts(&args.repair.calibration)?;
    let calibration = Calibration::new(&student.files, &pool, &texts, &[prompts(suite)], windows)?;
    let options = steps.options(&args.repair);
    let refiner = Refiner::new(&student.files, &teacher.files, &calibration, options, &pool);
    let progress = Progress::steps("repairing");
    let done = refiner.run(out, true, None, &mut |news| {
        if let RefineProgress::Step(step) = news {
            progress.show(step.point.step as u64, step.steps as u64);
        }
    })?;
    drop(progress);
    let model =
        IdentifiedModel::open(&out.display().to_string(), "reading the repaired student", args.zero.allow_zero)?;
    Ok(Some((model, steps.names(done.tokens))))
}

/// The prompts of a suite as conversations, for windows that overlap one of them to be left out.
fn prompts(suite: &Suite) -> NamedText {
    let line = |system: &str, user: &str| {
        json!({ "messages": [{ "role": "system", "content": system }, { "role": "user", "content": user }] })
            .to_string()
    };
    let lines: Vec<String> = suite.prompts().iter().map(|prompt| line(&prompt.system, &prompt.user)).collect();
    NamedText { name: "the suite".to_owned(), text: lines.join("\n") }
}
