//! `cargo xtask bench`: speeds for the record and curves for the documentation.

mod chart;
mod criterion;
mod curves;

use std::path::PathBuf;

use clap::Subcommand;

use crate::outcome::Outcome;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Run the criterion benchmarks and append their speeds to benches/record.
    Record(RecordArgs),
    /// Draw the cost of a token over depth and over batch size, as SVG below docs/img, from one model file.
    Curves(CurvesArgs),
}

/// Which benchmarks.
#[derive(clap::Args)]
struct RecordArgs {
    /// Only this one: gemv, lookup, prefill, attention, threads, decode or load.
    #[arg(long)]
    only: Option<String>,
}

/// What the curves are drawn from.
#[derive(clap::Args)]
struct CurvesArgs {
    /// The model file; `bitnet synth --shape glm-4.7-flash --preset phase2` makes one of full size.
    #[arg(long)]
    model: PathBuf,
    /// Measure with this binary instead of building one.
    #[arg(long)]
    bitnet: Option<PathBuf>,
    /// The deepest context.
    #[arg(long, default_value_t = 8192)]
    depth: u32,
    /// The largest batch.
    #[arg(long, default_value_t = 2048)]
    batch: u32,
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.what {
        What::Record(args) => criterion::record(args.only.as_deref()),
        What::Curves(args) => curves::draw(args),
    }
}
