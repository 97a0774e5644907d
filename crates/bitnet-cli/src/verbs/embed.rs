//! `bitnet embed`: texts to vectors, and the benchmark of the recursion.

mod bench;
mod texts;

use anyhow::Result;
use clap::Subcommand;

/// Turn each line of a text into a vector, or measure an embedder.
///
/// Prints a JSON object per line, or writes the tensor `vectors` [lines, dims] with --out.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    texts: texts::TextArgs,
}

#[derive(Subcommand)]
enum What {
    Bench(bench::Args),
}

pub(crate) fn execute(args: Args) -> Result<()> {
    match args.what {
        Some(What::Bench(args)) => bench::execute(&args),
        None => texts::execute(&args.texts),
    }
}
