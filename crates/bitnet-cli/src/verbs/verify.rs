//! `bitnet verify`: reads all of a model and names every defect.

use anyhow::{Result, bail};

use crate::progress::{Unit, bar};
use crate::{model, output, size};

/// Read a whole model file and report every defect.
///
/// Exit code 1 when there is a defect.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// GGUF file, checkpoint directory, or name in the local Hugging Face cache
    #[arg(value_name = "FILE")]
    model: String,
    /// The report as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub(crate) fn execute(args: Args) -> Result<()> {
    let path = model::locate(&args.model)?;
    let bar = bar(0, Unit::Bytes, "verifying");
    let mut progress = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let report = gguf_bitnet::verify(&path, &mut progress)?;
    bar.finish_and_clear();
    if args.json {
        output::json(&report)?;
    } else {
        for defect in &report.defects {
            output::line(defect)?;
        }
        let verdict = if report.defects.is_empty() { "sound" } else { "DAMAGED" };
        output::line(format_args!(
            "{}: {verdict}, {} tensors, {}, BLAKE3 {}",
            path.display(),
            report.tensors,
            size::show(report.bytes),
            report.identity
        ))?;
    }
    match report.defects.len() {
        0 => Ok(()),
        1 => bail!("{} has a defect: make or download it again", path.display()),
        n => bail!("{} has {n} defects: make or download it again", path.display()),
    }
}
