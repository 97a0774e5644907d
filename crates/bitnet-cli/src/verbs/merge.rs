//! `bitnet merge`: joins the parts that `--shard` wrote into the output of the job that was not cut.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use behavior_eval::fidelity::{TextCut, fidelity_of, perplexity_of};
use gguf_bitnet::{Cut, Job, Parts, UnitJob, UnitResult, output_path, write_atomic};
use rlm_refine::ptq::CALIBRATION_JOB;
use rlm_refine::train::EXPERTS_JOB;
use serde::Serialize;

use super::{batch, eval, eval_gates, verify};
use crate::args::path_not_stream;
use crate::output::{self, Progress};

const OUT: &str = "the joined output is written beside its name first: write the name of a file";

/// The name of the job of `quantize` in manifests.
const MODEL_JOB: &str = "quantize";

/// Join the parts of a job that was cut with --shard.
///
/// The output equals that of the job that was not cut, byte for byte. Parts of different models, inputs or settings, parts
/// that overlap, shards that are missing and results that differ are refused, and nothing is written.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The output: the answers of `batch`, the student of `quantize` and of `distill --sequential`, the report of `eval fidelity` and of `verify`, the folder of the report of `eval-gates`
    #[arg(value_name = "OUT", value_parser = path_not_stream(OUT))]
    out: PathBuf,
    /// The parts, in any order
    #[arg(value_name = "PART", required = true)]
    parts: Vec<PathBuf>,
    /// Replace an existing file
    #[arg(long)]
    force: bool,
}

pub(crate) fn execute(args: &Args) -> Result<()> {
    let parts = Parts::open(&args.parts)?;
    let job = parts.manifest()["job"].as_str();
    if job == Some(eval_gates::JOB) {
        return eval_gates::join(&parts, &args.out, args.force);
    }
    Job::check(&args.out, args.force)?;
    match job {
        Some(batch::JOB) => join_lines(&parts, args),
        Some(MODEL_JOB | EXPERTS_JOB) => join_model(&parts, args),
        Some(gguf_bitnet::VERIFY_JOB) => {
            let report = gguf_bitnet::verify_parts(&parts)?;
            write_report(&report, &args.out)?;
            verify::refuse_defects(&report)
        }
        Some(eval::FIDELITY_JOB) => write_report(&fidelity_of(&cut(&parts)?, |unit| read(&parts, unit))?, &args.out),
        Some(eval::PERPLEXITY_JOB) => {
            write_report(&perplexity_of(&cut(&parts)?, |unit| read(&parts, unit))?, &args.out)
        }
        Some(CALIBRATION_JOB) => bail!(
            "{} is of a layer of a calibration: put all parts into one folder and run `bitnet quantize` with --rounds and --out",
            args.parts[0].display()
        ),
        _ => bail!(
            "{}: this program does not know the job {}; merge with the program that wrote the part",
            args.parts[0].display(),
            parts.manifest()["job"]
        ),
    }
}

fn read(parts: &Parts, unit: usize) -> Result<Vec<u8>> {
    Ok(parts.read(unit)?)
}

fn join_lines(parts: &Parts, args: &Args) -> Result<()> {
    batch::finish(join(parts, args)?, &args.out, ("the input", parts.manifest()), true)
}

/// Appends the units one after the other to the job of the output.
fn join(parts: &Parts, args: &Args) -> Result<UnitJob> {
    let cut = Cut { units: parts.units(), shard: None };
    let mut job = UnitJob::open(&args.out, parts.manifest(), cut, args.force)?;
    let progress = Progress::items("units");
    while let Some(unit) = job.next_unit() {
        progress.show(unit as u64, cut.units as u64);
        let bytes = parts.read(unit)?;
        let (failed, failure) = parts.failed_in(unit);
        job.append(&UnitResult { bytes, failed, failure: failure.map(str::to_owned) })?;
    }
    Ok(job)
}

/// Writes the units of a student one after the other, and verifies the file before it takes its name.
fn join_model(parts: &Parts, args: &Args) -> Result<()> {
    let job = join(parts, args)?;
    if let Some(data) = job.data_path() {
        let progress = Progress::bytes("verifying");
        let report = gguf_bitnet::verify(&data, &mut |done, total| progress.show(done, total))?;
        let allow_zero = parts.manifest()["allow_zero"] == true;
        let report = if allow_zero { report.allow_zero() } else { report };
        drop(progress);
        if let Some(defect) = report.defects.first() {
            bail!("the joined model has a defect ({defect}): run all shards again");
        }
    }
    job.finish()?;
    output::line(format_args!("wrote and verified {}", args.out.display()))
}

/// The way in which the text of a measurement was cut.
fn cut(parts: &Parts) -> Result<TextCut> {
    let cut: TextCut = serde_json::from_value(parts.manifest()["cut"].clone())?;
    match cut.windows == parts.units() {
        true => Ok(cut),
        false => bail!("the parts hold {} units for {} windows: run all shards again", parts.units(), cut.windows),
    }
}

/// Writes a report as `--json` prints it.
fn write_report(report: &impl Serialize, out: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(report)? + "\n";
    write_atomic(&output_path(out)?, text.as_bytes())?;
    output::line(format_args!("wrote {}", out.display()))
}
