//! `cargo xtask bench`: speeds for the record and curves for the documentation.

mod chart;
mod criterion;
mod curves;

use clap::Subcommand;

use crate::outcome::Outcome;

/// The two measurements, each with its options.
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
    Curves(curves::Args),
}

/// A choice of benchmarks.
#[derive(clap::Args)]
struct RecordArgs {
    /// Only this one: gemv, lookup, prefill, attention, threads, decode or load.
    #[arg(long)]
    only: Option<String>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.what {
        What::Record(args) => criterion::record(args.only.as_deref()),
        What::Curves(args) => curves::draw(args),
    }
}
