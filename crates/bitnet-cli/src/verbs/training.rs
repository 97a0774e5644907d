//! The run behind `refine` and `distill`, with its progress and its report.

mod keep;
mod sequential;
mod start;

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use behavior_eval::gates::RefusalSignals;
use behavior_eval::records::artifact::TeacherArtifact;
use behavior_eval::stats::Difference;
use gguf_bitnet::peak_rss_bytes;
use moe_runtime::ModelFiles;
use rlm_refine::Error;
use rlm_refine::adapt::HeldOutRewards;
use rlm_refine::ptq::{Calibration, SourceReport};
use rlm_refine::train::{
    ProtectionReport, Recordings, RefineProgress, RefineReport, Refiner, RepairedRouter, Source, TrainError,
    TrainMemory, TrainOptions, groups_of, held_out_windows,
};
use serde_json::json;
use tl_kernels::Pool;

use crate::args::TrainingArgs;
use crate::exit::UsageError;
use crate::load;
use crate::output::{self, Progress, size};
use keep::{Lessons, Run};
pub(super) use sequential::run as run_sequential;
pub(super) use start::AdapterStart;

/// Runs a training with these settings, on an adapter where one is to be trained.
pub(super) fn run(args: &TrainingArgs, mut options: TrainOptions, adapter: Option<AdapterStart<'_>>) -> Result<()> {
    if options.steps == 0 && options.repair.is_none() {
        return Err(UsageError::new("--steps 0 trains nothing: name a method with --repair-routers").into());
    }
    if adapter.is_some() && args.lessons.is_some() {
        return Err(
            UsageError::new("lessons are about students, and an adapter is trained: leave out --lessons").into()
        );
    }
    if let Some(start) = &adapter {
        start.check_outputs(args.out(), args.log())?;
    }
    gguf_bitnet::Job::check(args.out(), args.force)?;
    let suite = args.suite()?;
    let student = load::open(&args.model.model)?;
    options.adapter = adapter.map(|start| start.read(&student)).transpose()?.map(Arc::new);
    if let Some(adapter) = options.adapter.as_deref().filter(|_| args.train.is_empty()) {
        options.groups = groups_of(adapter);
    }
    let pool = args.threads.pool()?;
    let taught = Taught::open(args, &student, &pool)?;
    let lessons = match &args.lessons {
        Some(store) => Some(Lessons::open(store, taught.identity()?)?),
        None => None,
    };
    if let (Some(lessons), Some(factor)) = (&lessons, args.focus) {
        options.focus = lessons.focus(factor, &student)?;
    }
    let mut shown = Shown::default();
    let protected = args.protected(&student, &pool)?;
    let mut refiner = Refiner::on(&student, taught.source(), options, &pool);
    if let Some(protected) = &protected {
        refiner = refiner.protecting(protected);
    }
    if let Some(suite) = &suite {
        refiner = refiner.practising(suite);
    }
    let report = refiner.run(args.out(), args.force, args.log(), &mut |progress| shown.show(&progress));
    let report = report.map_err(usage_of_source)?;
    drop(shown);
    let settings = refiner.settings().to_string();
    let lessons = match lessons {
        Some(lessons) => {
            let refined = load::open(&args.out().display().to_string())?;
            let run = Run { student: &refined, report: &report, settings: &settings };
            let (teacher, held_out) = taught.checkpoint_and_held_out();
            Some(lessons.keep(&run, teacher, &held_out, &pool)?)
        }
        None => None,
    };
    if args.json {
        return output::json(&json!({
            "out": args.out(), "report": report, "texts": taught.texts(), "lessons": lessons,
            "memory_bound_bytes": report.memory.bytes(), "peak_rss_bytes": peak_rss_bytes(),
        }));
    }
    if let Taught::Recordings(recordings) = &taught {
        output::line(recorded(recordings))?;
    }
    for source in taught.texts() {
        output::line(format_args!(
            "{}: {} of {} windows used ({} tokens), {} excluded",
            source.name, source.used, source.windows, source.tokens, source.excluded
        ))?;
    }
    output::line(summary(&report))?;
    if let (Some(n), Some(store)) = (lessons, &args.lessons) {
        output::line(format_args!("{n} new lessons in {}", store.display()))?;
    }
    let peak = peak_rss_bytes().map_or_else(String::new, |bytes| format!(", peak memory {}", size(bytes)));
    output::line(format_args!("wrote and verified {} ({}{peak})", args.out().display(), size(report.output_bytes)))
}

/// The most memory that the run will hold, and its parts.
fn memory_line(memory: &TrainMemory) -> String {
    let groups = memory.trained.iter().map(|(group, bytes)| (group.name(), *bytes));
    let parts = [
        ("penalty", memory.penalty),
        ("files", memory.files),
        ("heads", memory.heads),
        ("residual stream", memory.stream),
        ("kept activations", memory.activations),
        ("answering models", memory.rewards),
        ("work", memory.work),
        ("program", memory.program),
    ];
    let parts: Vec<String> = groups
        .chain(parts)
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(name, bytes)| format!("{name} {}", size(bytes)))
        .collect();
    format!("memory: at most {} for passes of {} tokens ({})", size(memory.bytes()), memory.tokens, parts.join(", "))
}

/// The source that the student learns from.
enum Taught {
    Texts { teacher: Box<ModelFiles>, calibration: Calibration },
    Recordings(Recordings),
}

impl Taught {
    fn open(args: &TrainingArgs, student: &ModelFiles, pool: &Pool) -> Result<Self> {
        if let Some(path) = &args.artifact {
            let artifact = TeacherArtifact::open(path)?;
            return Ok(Taught::Recordings(Recordings::read(&artifact, &RefusalSignals::default())?));
        }
        // The options demand one of both.
        let teacher = Box::new(load::open(args.teacher.as_deref().unwrap_or_default())?);
        Ok(Taught::Texts { teacher, calibration: args.windows(student, pool)? })
    }

    fn source(&self) -> Source<'_> {
        match self {
            Taught::Texts { teacher, calibration } => Source::Texts { teacher, calibration },
            Taught::Recordings(recordings) => Source::Recordings(recordings),
        }
    }

    /// BLAKE3 of the teacher.
    fn identity(&self) -> Result<String> {
        Ok(match self {
            Taught::Texts { teacher, .. } => teacher.identity(&mut |_, _| {})?,
            Taught::Recordings(recordings) => recordings.teacher().to_owned(),
        })
    }

    /// The teacher's checkpoint, with the windows that are held out of training; neither for recordings.
    fn checkpoint_and_held_out(&self) -> (Option<&ModelFiles>, Vec<Vec<u32>>) {
        match self {
            Taught::Texts { teacher, calibration } => (Some(&**teacher), held_out_windows(calibration.windows())),
            Taught::Recordings(_) => (None, Vec::new()),
        }
    }

    /// The texts that were cut into windows.
    fn texts(&self) -> &[SourceReport] {
        match self {
            Taught::Texts { calibration, .. } => &calibration.sources,
            Taught::Recordings(_) => &[],
        }
    }
}

/// A line about recordings.
fn recorded(recordings: &Recordings) -> String {
    let (answers, tokens) = (recordings.windows().len(), recordings.windows().iter().map(Vec::len).sum::<usize>());
    let count = |wanted: f32| recordings.rewards().filter(|reward| *reward == wanted).count();
    let (fit, contradict) = (count(1.0), count(-1.0));
    format!(
        "{answers} recorded answers ({tokens} tokens); {fit} do what their label asks for, {contradict} do not, {} have no label",
        answers - fit - contradict
    )
}

fn usage_of_source(error: Error) -> anyhow::Error {
    match error {
        Error::OutputIsSource { .. } => UsageError::new(format!("--out: {error}")).into(),
        Error::Train(
            error @ (TrainError::NoCheckpoint { .. }
            | TrainError::NoAdapter
            | TrainError::AdapterGroups { .. }
            | TrainError::AdapterAlone { .. }),
        ) => UsageError::new(error.to_string()).into(),
        Error::Train(TrainError::LogIsModel { .. }) => UsageError::new(format!("--log: {error}")).into(),
        error => error.into(),
    }
}

fn summary(report: &RefineReport) -> String {
    let trained: Vec<String> = report.trained.iter().map(|(group, n)| format!("{group} {n}")).collect();
    let trained = if trained.is_empty() { "nothing".to_owned() } else { trained.join(", ") };
    let mut text = format!("{} steps, {} tokens; trained: {trained}", report.steps, report.tokens);
    if let [Some(before), Some(after)] = report.held_out_kl {
        text += &format!("\nKL divergence on held-out windows: {before:.5} before, {after:.5} after");
    }
    if let Some(repair) = &report.repair {
        let kept = repair.routers.iter().filter(|router| router.is_kept).count();
        text += &format!("\nrouters repaired by {}: {kept} of {}", repair.method, repair.routers.len());
        for router in &repair.routers {
            let RepairedRouter { layer, agreement_before, agreement_after, is_kept } = router;
            let fate = if *is_kept { "kept" } else { "left as it was" };
            text += &format!(
                "\n  layer {layer}: agreement {agreement_before:.4} before, {agreement_after:.4} after, {fate}"
            );
        }
        let [before, after] = repair.held_out_kl;
        text += &format!("\n  KL divergence on held-out windows: {before:.5} before, {after:.5} after");
    }
    if let Some(rewards) = &report.rewards {
        text += &reward_summary(rewards, report.dropped_groups.unwrap_or(0.0));
    }
    if let Some(protection) = &report.protection {
        text += &protection_summary(protection);
    }
    if let Some(changed) = report.changed_trits {
        text += &format!("\ntrits changed: {:.2} %", 100.0 * changed);
    }
    text
}

fn reward_summary(rewards: &HeldOutRewards, dropped: f64) -> String {
    let line = |name: &str, [before, after]: [f64; 2], gain: &Option<Difference>| {
        let interval = gain.as_ref().map_or_else(String::new, |gain| {
            format!(" (difference {:+.4}, 95 % interval {:+.4} to {:+.4})", gain.value, gain.low95, gain.high95)
        });
        format!("\n  {name} answers: {before:.4} before, {after:.4} after{interval}")
    };
    format!("\nreward on {} held-out prompts; {:.1} % of the groups were dropped", rewards.prompts, 100.0 * dropped)
        + &line("greedy", rewards.greedy, &rewards.greedy_gain)
        + &line("sampled", rewards.sampled, &rewards.sampled_gain)
}

/// Tensors of the drift that are printed.
const DRIFT_LINES: usize = 5;

fn protection_summary(report: &ProtectionReport) -> String {
    let ProtectionReport { windows, tokens, kept, penalty, held_out_kl, drift } = report;
    let mut text = format!(
        "\nprotected texts: {windows} windows, {tokens} tokens, {kept} numbers held; penalty at the end {penalty:.5} nats per token"
    );
    if let Some([before, after]) = held_out_kl {
        text += &format!("\n  KL divergence on protected held-out windows: {before:.5} before, {after:.5} after");
    }
    let mut drift: Vec<_> = drift.iter().collect();
    drift.sort_by(|a, b| b.penalty.total_cmp(&a.penalty));
    for tensor in drift.iter().take(DRIFT_LINES).filter(|tensor| tensor.penalty > 0.0) {
        text += &format!(
            "\n  {}: moved by {:.2} % of its length, penalty {:.6}",
            tensor.tensor,
            100.0 * tensor.moved,
            tensor.penalty
        );
    }
    text
}

/// The bar of the stage at work.
#[derive(Default)]
struct Shown {
    bar: Option<(u8, Progress)>,
    /// The time at which the first step of this call ended, and the tokens then.
    start: Option<(Instant, u64)>,
}

impl Shown {
    fn show(&mut self, progress: &RefineProgress) {
        match progress {
            RefineProgress::Memory(memory) => output::note(memory_line(memory)),
            RefineProgress::Hash(done, total) => {
                self.bar(0, || Progress::bytes("reading both models")).show(*done, *total)
            }
            RefineProgress::Step(report) => {
                let point = &report.point;
                let (start, before) = *self.start.get_or_insert_with(|| (Instant::now(), point.tokens));
                let rate = (point.tokens - before) as f64 / start.elapsed().as_secs_f64().max(1e-9);
                let held_out = point.held_out_kl;
                let bar = self.bar(1, || Progress::steps("training"));
                let text = match point.grpo {
                    Some(update) => format!("reward {:.3}  {rate:.0} tokens/s", update.reward),
                    None => format!("loss {:.4}  {rate:.0} tokens/s", point.loss),
                };
                bar.say(held_out.map_or_else(|| text.clone(), |kl| format!("{text}  held-out KL {kl:.4}")));
                bar.show(point.step as u64, report.steps as u64);
            }
            RefineProgress::Write(done, total) => self.bar(2, || Progress::bytes("writing")).show(*done, *total),
            _ => {}
        }
    }

    fn bar(&mut self, stage: u8, new: impl FnOnce() -> Progress) -> &Progress {
        if self.bar.as_ref().is_none_or(|(of, _)| *of != stage) {
            self.bar = None;
        }
        &self.bar.get_or_insert_with(|| (stage, new())).1
    }
}
