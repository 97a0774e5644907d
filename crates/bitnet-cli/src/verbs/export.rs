//! `bitnet export`: writes a model with adapters folded into its weights.

use std::path::PathBuf;

use anyhow::Result;
use rlm_refine::{Error, ExportReport, export};
use serde_json::json;

use crate::args::{self, AdapterArgs, ModelArg};
use crate::exit::UsageError;
use crate::load;
use crate::output::{self, size};

/// Write a model with adapters folded into its weights.
///
/// Matrices of F32, F16, BF16, Q8_0 and Q6_K are encoded anew in their own type; all else is copied. Ternary matrices take
/// no additions: adapters for them stay files of their own, for --adapter.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    adapters: AdapterArgs,
    /// The GGUF to write
    #[arg(short, long, value_name = "FILE", value_parser = args::path_not_stream(args::MODEL_OUT))]
    out: PathBuf,
    /// Replace an existing file
    #[arg(long)]
    force: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn execute(args: Args) -> Result<()> {
    if args.adapters.adapters.is_empty() {
        return Err(UsageError::new("there is nothing to fold: name an adapter with --adapter").into());
    }
    let files = load::open(&args.model.model)?;
    let out = gguf_bitnet::output_path(&args.out)?;
    let report = export(&files, &args.adapters.adapters, &out, args.force).map_err(|error| match error {
        Error::OutputIsSource { .. } => UsageError::new(format!("--out: {error}")).into(),
        error => anyhow::Error::from(error),
    })?;
    if args.json {
        return output::json(&json!({ "out": args.out, "report": report }));
    }
    let ExportReport { output_bytes, folded } = report;
    let mut table = output::table(["tensor", "type", "rel. error"], 2);
    for tensor in &folded {
        table.add_row([tensor.name.clone(), tensor.ty.name().to_owned(), format!("{:.2e}", tensor.relative_mse)]);
    }
    output::line(table)?;
    output::line(format_args!("wrote {} ({})", args.out.display(), size(output_bytes)))
}
