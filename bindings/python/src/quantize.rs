//! `quantize`: makes a ternary student of a checkpoint.

use std::path::PathBuf;

use gguf_bitnet::TensorType;
use moe_runtime::ModelFiles;
use pyo3::prelude::*;
use rlm_refine::ptq::{Calibration, GptqOptions, NamedText, WindowOptions};
use rlm_refine::{Method, Override, Preset, QuantizeOptions, QuantizeReport, Quantizer, Recipe, Ternary};
use ternary_core::Rounding;
use tl_kernels::Pool;

use crate::errors::{CraftsmanError, sentence, usage};
use crate::options::{locate, pool, unknown};
use crate::worker::{Reporter, run_job};

/// Most bytes of a calibration text.
const MAX_TEXT_BYTES: u64 = 256 << 20;

/// The settings of a job.
#[derive(Clone, Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct QuantizeArgs {
    source: PathBuf,
    out: PathBuf,
    preset: String,
    ternary: Option<String>,
    tensor_types: Vec<String>,
    method: String,
    calibration: Vec<PathBuf>,
    calibration_tokens: Option<usize>,
    seed: u64,
    max_memory: Option<u64>,
    force: bool,
    allow_zero: bool,
    threads: Option<usize>,
}

/// Writes the student and returns the report as JSON.
#[pyfunction]
pub(crate) fn quantize(py: Python<'_>, args: QuantizeArgs, on_progress: Option<Py<PyAny>>) -> PyResult<String> {
    let recipe = recipe(&args)?;
    match (args.method.as_str(), args.calibration.is_empty()) {
        ("gptq", true) => return Err(usage("method \"gptq\" needs texts: name them with calibration")),
        ("ls" | "absmean", false) => return Err(usage("calibration needs method \"gptq\"")),
        ("ls" | "absmean" | "gptq", _) => {}
        (other, _) => return Err(unknown("method", other, "ls, absmean or gptq")),
    }
    let (source, pool) = (locate(&args.source)?, pool(args.threads)?);
    let work = move |reporter: &Reporter| -> Result<QuantizeReport, rlm_refine::Error> {
        gguf_bitnet::Job::check(&args.out, args.force)?;
        let files = ModelFiles::open(&source)?;
        let method = match args.method.as_str() {
            "absmean" => Method::Round(Rounding::AbsMean),
            "gptq" => Method::Gptq(GptqOptions { seed: args.seed, ..GptqOptions::new(windows(&args, &files, &pool)?) }),
            _ => Method::Round(Rounding::LeastSquares),
        };
        let (max_memory_bytes, allow_zero) = (args.max_memory, args.allow_zero);
        let options = QuantizeOptions { recipe, method, max_memory_bytes, allow_zero };
        let quantizer = Quantizer::new(&files, options, pool.threads())?;
        quantizer.run(&pool, &args.out, args.force, &mut |stage, done, total| {
            reporter.tell(stage.name(), done, total);
        })
    };
    let report = run_job(py, on_progress.as_ref(), work)?.map_err(sentence)?;
    serde_json::to_string(&report).map_err(|error| CraftsmanError::new_err(error.to_string()))
}

fn recipe(args: &QuantizeArgs) -> PyResult<Recipe> {
    let preset = Preset::ALL.iter().find(|(name, _)| *name == args.preset).map(|(_, preset)| *preset);
    let names: Vec<&str> = Preset::ALL.iter().map(|(name, _)| *name).collect();
    let preset = preset.ok_or_else(|| unknown("preset", &args.preset, &names.join(", ")))?;
    let ternary = match args.ternary.as_deref() {
        None => Ternary::Preset,
        Some("none") => Ternary::None,
        Some(name) => {
            let ty = name.parse::<TensorType>().ok().filter(|ty| ty.is_ternary() && ty.is_writable());
            let known = "none or a ternary type, for example tq2_0";
            Ternary::Packed(ty.ok_or_else(|| unknown("ternary", name, known))?)
        }
    };
    let overrides = args.tensor_types.iter().map(|text| Override::parse(text));
    let overrides = overrides.collect::<Result<Vec<_>, _>>().map_err(|error| usage(error.to_string()))?;
    Ok(Recipe { preset, ternary, overrides, ..Recipe::default() })
}

/// The windows of the calibration texts; those of an unfinished job are used again.
fn windows(args: &QuantizeArgs, files: &ModelFiles, pool: &Pool) -> Result<Calibration, rlm_refine::Error> {
    let mut sources = Vec::new();
    for path in &args.calibration {
        let text = gguf_bitnet::read_text(path, MAX_TEXT_BYTES)?;
        let text = gguf_bitnet::with_line_feeds(&text).into_owned();
        sources.push(NamedText { name: path.display().to_string(), text });
    }
    let default = WindowOptions::default();
    let max_tokens = args.calibration_tokens.unwrap_or(default.max_tokens);
    let options = WindowOptions { max_tokens, seed: args.seed, ..default };
    if !args.force
        && let Some(kept) = Calibration::of_unfinished(files, &args.out, &sources, &[], options)?
    {
        return Ok(kept);
    }
    Calibration::new(files, pool, &sources, &[], options)
}
