//! `bitnet verify`: reads a whole model and names every defect.

use anyhow::{Result, bail};
use clap::builder::NonEmptyStringValueParser;
use gguf_bitnet::VerifyReport;

use crate::args::{AllowZero, ShardArgs};
use crate::load;
use crate::output::{self, Progress, size};

/// Read a whole model file and report every defect.
///
/// Exit code 1 when there is a defect. With --shard the exit code is 0 even when the part holds defects; `bitnet merge` reports
/// those of all parts.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// GGUF file, checkpoint directory, or name in the local Hugging Face cache
    #[arg(value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    model: String,
    #[command(flatten)]
    zero: AllowZero,
    /// Print the report as JSON; `bitnet merge` writes that of a check that was cut with --shard
    #[arg(long, conflicts_with = "shard")]
    json: bool,
    #[command(flatten)]
    shard: ShardArgs,
    /// Replace an existing part
    #[arg(long, requires = "shard")]
    force: bool,
}

pub(crate) fn execute(args: Args) -> Result<()> {
    let path = load::locate(&args.model)?;
    let progress = Progress::bytes("verifying");
    if let Some((shard, part)) = args.shard.given() {
        let mut show = |done, total| progress.show(done, total);
        gguf_bitnet::verify_shard(&path, (shard, part), args.zero.allow_zero, args.force, &mut show)?;
        drop(progress);
        return output::line(format_args!("wrote {}", part.display()));
    }
    let report = gguf_bitnet::verify(&path, &mut |done, total| progress.show(done, total))?;
    let report = if args.zero.allow_zero { report.allow_zero() } else { report };
    drop(progress);
    if args.json {
        output::json(&report)?;
    } else {
        let as_notice = if report.zero_allowed { "notice: " } else { "" };
        for tail in &report.zero_tails {
            output::line(format_args!("{as_notice}{}: {tail}", tail.path.display()))?;
        }
        for defect in &report.defects {
            output::line(defect)?;
        }
        for notice in &report.notices {
            output::line(format_args!("notice: {notice}"))?;
        }
        let verdict = if report.is_valid() { "sound" } else { "DAMAGED" };
        output::line(format_args!(
            "{}: {verdict}, {} tensors, {}, BLAKE3 {}",
            path.display(),
            report.tensors,
            size(report.bytes),
            report.identity
        ))?;
    }
    refuse_defects(&report)
}

/// The failure of a model with defects.
pub(super) fn refuse_defects(report: &VerifyReport) -> Result<()> {
    if report.is_valid() {
        return Ok(());
    }
    let path = &report.path;
    match report.zero_tails.len() + report.defects.len() {
        1 => bail!("{} has a defect: make or download it again", path.display()),
        n => bail!("{} has {n} defects: make or download it again", path.display()),
    }
}
