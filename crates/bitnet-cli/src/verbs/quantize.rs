//! `bitnet quantize`: makes a ternary student of a checkpoint.

mod rounds;

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use comfy_table::Table;
use gguf_bitnet::{Shard, peak_rss_bytes};
use moe_runtime::ModelFiles;
use rlm_refine::ptq::{LayerReport, NetworkReport, PtqError, SourceReport, Unfinished};
use rlm_refine::{
    ClassCandidates, Error, Method, PrecisionOptions, PrecisionTable, QuantizeOptions, QuantizeReport, Quantizer,
    Reason, Stage,
};
use serde_json::json;
use ternary_core::Rounding;
use tl_kernels::Pool;

use crate::args::{self, AllowZero, CalibrationArgs, FfnAct, ModelArg, RecipeArgs, ShardArgs, Threads};
use crate::exit::UsageError;
use crate::load;
use crate::output::{self, Progress, bits_per_weight, size};
use rounds::{Waiting, show_rounds};

/// The help of `--shard`, which writes to the folder of the rounds where the student is calibrated.
const SHARD_HELP: &str = "Do share I of N of the work only, for example 2/5, and write it to --part, whose files `bitnet merge` \
                          joins; with --method gptq to --rounds";

/// Make a ternary student of a checkpoint.
///
/// It may be interrupted at any time: the same command continues and ends with the same bytes.
#[derive(clap::Args)]
#[command(mut_arg("shard", |shard| shard.help(SHARD_HELP)))]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// The GGUF to write
    #[arg(short, long, value_name = "FILE", required_unless_present = "shard", conflicts_with_all = ["shard", "part"], value_parser = args::path_not_stream(args::MODEL_OUT))]
    out: Option<PathBuf>,
    #[command(flatten)]
    shard: ShardArgs,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Most bytes of the student, for example 8.7GB: in place of a preset, each class of tensors gets the type of least error on
    /// the texts of --calibration
    #[arg(long, value_name = "SIZE", value_parser = args::size, conflicts_with_all = ["preset", "ternary"])]
    target_size: Option<u64>,
    /// How weights become trits
    #[arg(long, value_enum, default_value = "ls")]
    method: MethodName,
    #[command(flatten)]
    calibration: CalibrationArgs,
    #[command(flatten)]
    ffn_act: FfnAct,
    /// Limit on the resident memory, mapped pages included, for example 1GB
    #[arg(long, value_name = "SIZE", value_parser = args::size)]
    max_memory: Option<u64>,
    /// Keep the block of multi-token prediction, which --draft mtp needs; the student is larger by it
    #[arg(long)]
    keep_mtp: bool,
    /// Show the plan and its exact size, write nothing
    #[arg(long, conflicts_with = "shard")]
    dry_run: bool,
    /// Replace an existing file, and go on where a calibrated student drifts away from its teacher
    #[arg(long)]
    force: bool,
    /// Print the plan, or the report, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    zero: AllowZero,
    #[command(flatten)]
    threads: Threads,
}

#[derive(Clone, Copy, ValueEnum)]
enum MethodName {
    /// The published BitNet rule
    Absmean,
    /// The trits and scale of least squared error
    Ls,
    /// Layer by layer, those of least error on calibration texts
    Gptq,
}

/// The output that the options ask for.
#[derive(Clone, Copy)]
enum Destination<'a> {
    Student(&'a Path),
    Part(Shard, &'a Path),
    Rounds(Shard, &'a Path),
}

impl Args {
    /// Where the results go.
    ///
    /// # Errors
    /// Options that do not fit together.
    fn destination(&self) -> Result<Destination<'_>> {
        let is_calibrated = matches!(self.method, MethodName::Gptq);
        self.calibration.ensure_for(is_calibrated, self.target_size.is_some())?;
        let not_cut = |error: Error| Err(UsageError::new(format!("--shard: {error}")).into());
        match (self.shard.share(), self.shard.given(), &self.calibration.rounds.rounds) {
            (Some(_), Some(_), _) if self.target_size.is_some() => not_cut(Error::SearchNotCut),
            (Some(_), Some(_), _) if is_calibrated => not_cut(Error::NotCut),
            (_, Some((shard, part)), _) => Ok(Destination::Part(shard, part)),
            (Some(shard), None, Some(dir)) => Ok(Destination::Rounds(shard, dir)),
            _ => self.out.as_deref().map(Destination::Student).ok_or_else(|| anyhow!("give --out")),
        }
    }
}

impl<'a> Destination<'a> {
    /// The file of the job; `None` for rounds, which have one for each layer.
    fn file(self) -> Option<&'a Path> {
        match self {
            Destination::Student(out) => Some(out),
            Destination::Part(_, part) => Some(part),
            Destination::Rounds(..) => None,
        }
    }

    /// The calibration whose windows are taken up; none where `force` may begin a job anew, because that may be of another model.
    fn unfinished(self, force: bool) -> Option<Unfinished<'a>> {
        match self {
            Destination::Rounds(_, dir) => Some(Unfinished::Rounds(dir)),
            Destination::Student(file) | Destination::Part(_, file) => (!force).then_some(Unfinished::Output(file)),
        }
    }
}

pub(crate) fn execute(args: Args) -> Result<()> {
    let destination = args.destination()?;
    let mut files = load::open(&args.model.model)?;
    args.ffn_act.apply(&mut files);
    if args.keep_mtp {
        files = files.with_mtp()?;
    }
    let tokenizer = files.tokenizer();
    load::note_guesses(&files.guesses(tokenizer.as_ref().ok()));
    if let Err(error) = tokenizer {
        output::note(format_args!("note: the student will not run here: {error}"));
    }
    let file = destination.file().filter(|_| !args.dry_run);
    if let Some(out) = file {
        // Before texts are generated or routed, which may take long.
        gguf_bitnet::Job::check(out, args.force)?;
    }
    let pool = args.threads.pool()?;
    let method = match args.method {
        MethodName::Absmean => Method::Round(Rounding::AbsMean),
        MethodName::Ls => Method::Round(Rounding::LeastSquares),
        MethodName::Gptq => Method::Gptq(args.calibration.gptq(&files, &pool, destination.unfinished(args.force))?),
    };
    let recipe = args.recipe.recipe();
    let options =
        QuantizeOptions { recipe, method, max_memory_bytes: args.max_memory, allow_zero: args.zero.allow_zero };
    let search =
        args.target_size.map(|target_bytes| target(&args, &files, &pool, &options.method, target_bytes)).transpose()?;
    let mut progress = None;
    let mut quantizer = Quantizer::new(&files, options, pool.threads())?;
    if let Some(target) = search {
        if let Some(out) = file {
            quantizer.check_out(out, args.force).map_err(usage_of_source)?;
        }
        quantizer.fit(&pool, target, &mut |stage, done, total| show_progress(&mut progress, stage, done, total))?;
        progress = None;
    }
    let output_bytes = quantizer.output_bytes()?;
    if !args.json || args.dry_run {
        show_plan(&quantizer, output_bytes, args.json)?;
    }
    if args.dry_run {
        return Ok(());
    }
    let mut show = |stage, done, total| show_progress(&mut progress, stage, done, total);
    match destination {
        Destination::Student(out) => {
            let report = quantizer.run(&pool, out, args.force, &mut show).map_err(usage_of_source)?;
            drop(progress);
            show_report(&quantizer, &report, out, args.json)
        }
        Destination::Part(shard, part) => {
            quantizer.run_shard(&pool, (shard, part), args.force, &mut show).map_err(usage_of_source)?;
            drop(progress);
            output::line(format_args!("wrote {}", part.display()))
        }
        Destination::Rounds(shard, dir) => {
            let waiting = Waiting::new(args.calibration.rounds.wait);
            let looks_again = |missing: &PtqError| waiting.looks_again(missing);
            let report = quantizer.run_rounds(&pool, shard, &looks_again, args.force, &mut show)?;
            drop(progress);
            show_rounds(&report, dir, args.json)
        }
    }
}

/// Prints what was made and how well it fits.
fn show_report(quantizer: &Quantizer<'_>, report: &QuantizeReport, out: &Path, as_json: bool) -> Result<()> {
    report.notices.iter().for_each(|notice| output::note(format_args!("notice: the source: {notice}")));
    if as_json {
        return output::json(&json!({
            "out": out, "memory_bound_bytes": quantizer.memory_bytes(), "peak_rss_bytes": peak_rss_bytes(),
            "report": report, "calibration": quantizer.calibration(),
        }));
    }
    output::line(report_table(report))?;
    if !report.layers.is_empty() {
        output::line(layers_table(&report.layers))?;
        for source in quantizer.calibration() {
            let SourceReport { name, windows, excluded, used, tokens } = source;
            output::line(format_args!(
                "{name}: {used} of {windows} windows used ({tokens} tokens), {excluded} excluded"
            ))?;
        }
        let (made, saved) = report.searches();
        output::line(format_args!("settings chosen for {made} matrices, known from earlier runs for {saved}"))?;
    }
    let peak = peak_rss_bytes().map_or_else(String::new, |bytes| format!(", peak memory {}", size(bytes)));
    output::line(format_args!("wrote and verified {} ({}{peak})", out.display(), size(report.output_bytes)))
}

/// The budget of a search, and the texts it measures errors on: those of the calibrated method, or some of their own.
fn target(
    args: &Args,
    files: &ModelFiles,
    pool: &Pool,
    method: &Method,
    target_bytes: u64,
) -> Result<PrecisionOptions> {
    let (calibration, max_tokens) = match method {
        Method::Gptq(options) => (options.calibration.clone(), PrecisionOptions::TOKENS),
        Method::Round(_) => (args.calibration.calibration(files, pool, PrecisionOptions::TOKENS)?, usize::MAX),
    };
    Ok(PrecisionOptions { target_bytes, calibration, max_tokens })
}

/// Two options that name the same file make a wrong command line, whatever the file holds.
fn usage_of_source(error: Error) -> anyhow::Error {
    match error {
        Error::OutputIsSource { .. } => UsageError::new(format!("--out: {error}")).into(),
        Error::PoliciesAreModel { .. } => UsageError::new(format!("--policies: {error}")).into(),
        error => error.into(),
    }
}

/// Shows the progress of a stage; a new stage clears the one before.
fn show_progress(current: &mut Option<(Stage, Progress)>, stage: Stage, done: u64, total: u64) {
    let (_, progress) = match current.take_if(|(last, _)| *last == stage) {
        Some(same) => current.insert(same),
        None if matches!(stage, Stage::Measure | Stage::Calibrate) => {
            current.insert((stage, Progress::items(stage.name())))
        }
        None => current.insert((stage, Progress::bytes(stage.name()))),
    };
    progress.show(done, total);
}

/// Shows the types and the exact size of the output before a byte is written.
fn show_plan(quantizer: &Quantizer<'_>, output_bytes: u64, as_json: bool) -> Result<()> {
    let plan = quantizer.plan();
    if let (Some(table), false) = (quantizer.precision(), as_json) {
        output::line(precision_table(table))?;
    }
    if as_json {
        let tensors = plan.tensors.iter().map(|t| json!({ "name": t.name, "shape": t.shape, "type": t.assignment.ty }));
        return output::json(&json!({
            "output_bytes": output_bytes, "memory_bound_bytes": quantizer.memory_bytes(), "params": plan.params(),
            "tensors": tensors.collect::<Vec<_>>(), "precision": quantizer.precision(),
        }));
    }
    let unusual = plan.tensors.iter().filter_map(|t| match &t.assignment.reason {
        Reason::RowLength { wanted } => {
            Some(format!("{}: {} (rows of {} fill no block of {wanted})", t.name, t.assignment.ty, t.cols()))
        }
        Reason::Override(pattern) => Some(format!("{}: {} (by {pattern})", t.name, t.assignment.ty)),
        Reason::Preset | Reason::AlwaysF32 => None,
    });
    let unusual: Vec<_> = unusual.collect();
    for line in unusual.iter().take(8) {
        output::note(line);
    }
    if unusual.len() > 8 {
        output::note(format_args!(
            "... and {} more by fall-back or override (--dry-run --json lists all)",
            unusual.len() - 8
        ));
    }
    output::note(format_args!(
        "{} weights -> {} bytes ({}), memory below {}",
        plan.params(),
        output_bytes,
        size(output_bytes),
        size(quantizer.memory_bytes())
    ));
    Ok(())
}

/// One line per class and type: what each would take, and the error it would cause.
fn precision_table(precision: &PrecisionTable) -> Table {
    let mut table = output::table(["class", "type", "size", "error", "chosen"], 2);
    for ClassCandidates { class, candidates } in &precision.classes {
        for candidate in candidates {
            table.add_row([
                class.name().to_owned(),
                candidate.ty.name().to_owned(),
                size(candidate.bytes),
                format!("{:.2e}", candidate.error),
                if candidate.chosen { "yes".to_owned() } else { String::new() },
            ]);
        }
    }
    table
}

fn report_table(report: &QuantizeReport) -> Table {
    let headings = ["class", "type", "tensors", "weights", "size", "bits/weight", "rel. error", "cosine", "zeros"];
    let mut table = output::table(headings, 2);
    for line in &report.types {
        table.add_row([
            line.class.name().to_owned(),
            line.ty.name().to_owned(),
            line.tensors.to_string(),
            line.params.to_string(),
            size(line.bytes),
            format!("{:.4}", bits_per_weight(line.bytes, line.params)),
            format!("{:.2e}", line.relative_mse),
            format!("{:.5}", line.cosine),
            if line.ty.is_ternary() { format!("{:.1} %", 100.0 * line.zeros) } else { String::new() },
        ]);
    }
    table
}

/// One line per layer: what calibration did to the errors of its networks, and how far the student has drifted.
fn layers_table(layers: &[LayerReport]) -> Table {
    let headings = [
        "layer",
        "networks",
        "fewest tokens",
        "pooled",
        "gate+up error",
        "least squares",
        "down error",
        "least squares",
        "rows kept",
        "drift",
        "same experts",
        "mass",
    ];
    let mut table = output::table(headings, 0);
    for layer in layers {
        let networks: Vec<&NetworkReport> = layer.networks.iter().map(|(_, network)| network).collect();
        let first = || networks.iter().flat_map(|n| [n.gate, n.up]).flatten();
        let down = || networks.iter().filter_map(|n| n.down);
        let share = |share: Option<f64>| share.map_or_else(String::new, |share| format!("{share:.4}"));
        let rows = first().chain(down()).fold((0, 0), |(kept, all), m| (kept + m.rows_calibrated, all + m.rows));
        table.add_row([
            layer.layer.to_string(),
            networks.len().to_string(),
            networks.iter().map(|n| n.tokens).min().map_or_else(String::new, |n| n.to_string()),
            networks.iter().filter(|n| n.pooled_tokens > 0).count().to_string(),
            share(mean(first().filter_map(|m| m.error_after))),
            share(mean(first().filter_map(|m| m.error_before))),
            share(mean(down().filter_map(|m| m.error_after))),
            share(mean(down().filter_map(|m| m.error_before))),
            if rows.1 > 0 { format!("{:.1} %", 100.0 * rows.0 as f64 / rows.1 as f64) } else { String::new() },
            format!("{:.4}", layer.drift),
            layer.routing.map_or_else(String::new, |r| format!("{:.1} %", 100.0 * r.exact)),
            layer.routing.map_or_else(String::new, |r| format!("{:.1} %", 100.0 * r.mass)),
        ]);
    }
    table
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (n, sum) = values.fold((0, 0.0), |(n, sum), value| (n + 1, sum + value));
    (n > 0).then(|| sum / f64::from(n))
}
