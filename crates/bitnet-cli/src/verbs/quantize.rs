//! `bitnet quantize`: makes a ternary student of a checkpoint.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use comfy_table::Table;
use gguf_bitnet::peak_rss_bytes;
use rlm_refine::{Error, QuantizeOptions, QuantizeReport, Quantizer, Reason, Stage};
use serde_json::json;
use ternary_core::Rounding;

use crate::args::{self, AllowZero, ModelArg, RecipeArgs, Threads};
use crate::exit::UsageError;
use crate::load;
use crate::output::{self, Progress, bits_per_weight, size};

/// Make a ternary student of a checkpoint.
///
/// It may be interrupted at any time: the same command continues and ends with the same bytes.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// The GGUF to write
    #[arg(short, long, value_name = "FILE", value_parser = args::path_not_stream(args::MODEL_OUT))]
    out: PathBuf,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// How weights become trits: least squares, or the published mean rule
    #[arg(long, value_enum, default_value = "ls")]
    method: Method,
    /// Limit on the resident memory, mapped pages included, for example 1GB
    #[arg(long, value_name = "SIZE", value_parser = args::size)]
    max_memory: Option<u64>,
    /// Show the plan and its exact size, write nothing
    #[arg(long)]
    dry_run: bool,
    /// Replace an existing file
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
enum Method {
    /// The published BitNet rule
    Absmean,
    /// The trits and scale of least squared error
    Ls,
}

pub(crate) fn execute(args: Args) -> Result<()> {
    let files = load::open(&args.model.model)?;
    match files.tokenizer() {
        Ok(tokenizer) => load::note_guesses(&files.guesses(&tokenizer)),
        Err(error) => {
            load::note_guesses(&files.config.guesses);
            output::note(format_args!("note: the student will not run here: {error}"));
        }
    }
    let pool = args.threads.pool()?;
    let rounding = match args.method {
        Method::Absmean => Rounding::AbsMean,
        Method::Ls => Rounding::LeastSquares,
    };
    let recipe = args.recipe.recipe();
    let options =
        QuantizeOptions { recipe, rounding, max_memory_bytes: args.max_memory, allow_zero: args.zero.allow_zero };
    let quantizer = Quantizer::new(&files, options, pool.threads())?;
    let output_bytes = quantizer.output_bytes()?;
    if !args.json || args.dry_run {
        show_plan(&quantizer, output_bytes, args.json)?;
    }
    if args.dry_run {
        return Ok(());
    }
    let mut current: Option<(Stage, Progress)> = None;
    let mut show = |stage, done, total| {
        let (_, progress) = match current.take_if(|(last, _)| *last == stage) {
            Some(same) => current.insert(same),
            None => current.insert((stage, Progress::bytes(stage_name(stage)))),
        };
        progress.show(done, total);
    };
    let report = quantizer.run(&pool, &args.out, args.force, &mut show).map_err(|error| match error {
        // The two options name the same file, so the command line is wrong whatever the file holds.
        Error::OutputIsSource { .. } => UsageError::new(format!("--out: {error}")).into(),
        error => anyhow::Error::from(error),
    })?;
    drop(current);
    report.notices.iter().for_each(|notice| output::note(format_args!("notice: the source: {notice}")));
    if args.json {
        return output::json(&json!({
            "out": args.out, "memory_bound_bytes": quantizer.memory_bytes(), "peak_rss_bytes": peak_rss_bytes(),
            "report": report,
        }));
    }
    output::line(report_table(&report))?;
    let peak = peak_rss_bytes().map_or_else(String::new, |bytes| format!(", peak memory {}", size(bytes)));
    output::line(format_args!("wrote and verified {} ({}{peak})", args.out.display(), size(report.output_bytes)))
}

fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Hash => "reading the source",
        Stage::Encode => "quantising",
        Stage::Verify => "verifying",
    }
}

/// Shows the types and the exact size of the output before a byte is written.
fn show_plan(quantizer: &Quantizer<'_>, output_bytes: u64, as_json: bool) -> Result<()> {
    let plan = quantizer.plan();
    if as_json {
        let tensors = plan.tensors.iter().map(|t| json!({ "name": t.name, "shape": t.shape, "type": t.assignment.ty }));
        return output::json(&json!({
            "output_bytes": output_bytes, "memory_bound_bytes": quantizer.memory_bytes(), "params": plan.params(),
            "tensors": tensors.collect::<Vec<_>>(),
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
