//! `bitnet quantize`: a checkpoint goes in, a ternary student comes out.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use gguf_bitnet::{Rounding, TensorType, peak_rss_bytes};
use rlm_refine::{Override, Preset, QuantizeOptions, QuantizeReport, Quantizer, Reason, Recipe, Stage, Ternary};
use serde_json::json;

use crate::model::{self, Threads};
use crate::progress::{Unit, bar};
use crate::{output, size};

/// Make a ternary student of a checkpoint.
///
/// Interrupt it at any time: the same command goes on where it was and ends with the same bytes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model directory, GGUF file, or name in the local Hugging Face cache
    #[arg(short, long)]
    model: String,
    /// The GGUF to write
    #[arg(short, long)]
    out: PathBuf,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// How weights become trits: least squares, or the published mean rule
    #[arg(long, value_enum, default_value = "ls")]
    method: Method,
    /// Most resident memory, mapped pages included, for example 1GB
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    max_memory: Option<u64>,
    /// Show the plan and its exact size, write nothing
    #[arg(long)]
    dry_run: bool,
    /// Replace an existing file
    #[arg(long)]
    force: bool,
    /// The plan, or the report, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: Threads,
}

/// Which type each tensor gets; shared by `quantize` and `synth`.
#[derive(clap::Args)]
pub(crate) struct RecipeArgs {
    /// Starting point of the types
    #[arg(long, value_enum, default_value = "balanced")]
    preset: PresetName,
    /// The ternary type in place of the preset's; `none` makes every matrix F16
    #[arg(long, value_enum)]
    ternary: Option<TernaryName>,
    /// Exceptions, for example 'blk\.0\..*=Q8_0'; the last match wins
    #[arg(long = "tensor-type", value_name = "REGEX=TYPE", value_parser = Override::parse)]
    tensor_types: Vec<Override>,
}

#[derive(Clone, Copy, ValueEnum)]
enum PresetName {
    /// 9.08 GB for GLM-4.7-Flash: all but the experts at Q8_0
    Quality,
    /// 8.70 GB: all but the experts at Q6_K
    Balanced,
    /// 7.37 GB: five trits per byte, the rest at Q6_K
    #[value(name = "8g")]
    EightGigabytes,
    /// 10.7 GB: experts ternary, all else F16
    Phase1,
    /// 9.02 GB: every linear layer ternary, embedding and head F16
    Phase2,
}

#[derive(Clone, Copy, ValueEnum)]
enum TernaryName {
    /// 2.0625 bits per weight
    #[value(name = "tq2_0")]
    Tq2_0,
    /// 1.6875 bits per weight
    #[value(name = "tq1_0")]
    Tq1_0,
    /// 2.0625 bits per weight, a type of our own that other engines refuse
    BitnetT158,
    /// No ternary tensors
    None,
}

#[derive(Clone, Copy, ValueEnum)]
enum Method {
    /// The published BitNet rule
    Absmean,
    /// The trits and scale of least squared error
    Ls,
}

impl RecipeArgs {
    /// The recipe that was asked for.
    pub(crate) fn recipe(&self) -> Recipe {
        let preset = match self.preset {
            PresetName::Quality => Preset::Quality,
            PresetName::Balanced => Preset::Balanced,
            PresetName::EightGigabytes => Preset::EightGigabytes,
            PresetName::Phase1 => Preset::Phase1,
            PresetName::Phase2 => Preset::Phase2,
        };
        let ternary = match self.ternary {
            Option::None => Ternary::Preset,
            Some(TernaryName::Tq2_0) => Ternary::Packed(TensorType::Tq2_0),
            Some(TernaryName::Tq1_0) => Ternary::Packed(TensorType::Tq1_0),
            Some(TernaryName::BitnetT158) => Ternary::Packed(TensorType::BitnetT158),
            Some(TernaryName::None) => Ternary::None,
        };
        Recipe { preset, ternary, overrides: self.tensor_types.clone() }
    }
}

/// Runs the verb.
pub(crate) fn execute(args: Args) -> Result<()> {
    let files = model::open(&args.model)?;
    let pool = args.threads.pool()?;
    let rounding = match args.method {
        Method::Absmean => Rounding::AbsMean,
        Method::Ls => Rounding::LeastSquares,
    };
    let recipe = args.recipe.recipe();
    let options = QuantizeOptions { recipe, rounding, max_memory_bytes: args.max_memory };
    let quantizer = Quantizer::new(&files, options, pool.threads())?;
    let output_bytes = quantizer.output_bytes()?;
    if !args.json || args.dry_run {
        show_plan(&quantizer, output_bytes, args.json)?;
    }
    if args.dry_run {
        return Ok(());
    }
    let bars = [Stage::Hash, Stage::Encode, Stage::Verify].map(|stage| (stage, bar(0, Unit::Bytes, stage_name(stage))));
    let mut progress = |stage, done, total| {
        if let Some((_, bar)) = bars.iter().find(|(s, _)| *s == stage) {
            bar.set_length(total);
            bar.set_position(done);
            if done == total {
                bar.finish_and_clear();
            }
        }
    };
    let report = quantizer.run(&pool, &args.out, args.force, &mut progress)?;
    if args.json {
        return output::json(&json!({
            "out": args.out, "memory_bound_bytes": quantizer.memory_bytes(), "peak_rss_bytes": peak_rss_bytes(),
            "report": report,
        }));
    }
    output::line(report_table(&report))?;
    let peak = peak_rss_bytes().map_or_else(String::new, |bytes| format!(", peak memory {}", size::show(bytes)));
    output::line(format_args!("wrote and verified {} ({}{peak})", args.out.display(), size::show(report.output_bytes)))
}

fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Hash => "reading the source",
        Stage::Encode => "quantising",
        Stage::Verify => "verifying",
    }
}

/// What will be written, before anything is.
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
        size::show(output_bytes),
        size::show(quantizer.memory_bytes())
    ));
    Ok(())
}

fn report_table(report: &QuantizeReport) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["class", "type", "tensors", "weights", "size", "bits/weight", "rel. error", "cosine", "zeros"]);
    for line in &report.types {
        table.add_row([
            line.class.name().to_owned(),
            line.ty.name().to_owned(),
            line.tensors.to_string(),
            line.params.to_string(),
            size::show(line.bytes),
            format!("{:.4}", line.bytes as f64 * 8.0 / line.params.max(1) as f64),
            format!("{:.2e}", line.relative_mse),
            format!("{:.5}", line.cosine),
            if line.ty.is_ternary() { format!("{:.1} %", 100.0 * line.zeros) } else { String::new() },
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
