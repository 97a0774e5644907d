//! `bitnet embed`: texts to vectors, and the benchmark of the recursion.

mod bench;
mod texts;

use anyhow::Result;
use clap::Subcommand;

use crate::exit::UsageError;

/// Turn each line of a text into a vector, or measure an embedder.
///
/// Prints a JSON object per line, or writes the tensor `vectors` [lines, dims] with --out.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    texts: Option<texts::TextArgs>,
}

#[derive(Subcommand)]
enum What {
    Bench(bench::Args),
}

pub(crate) fn execute(args: Args) -> Result<()> {
    match (args.what, args.texts) {
        (Some(What::Bench(args)), _) => bench::execute(&args),
        (None, Some(args)) => texts::execute(&args),
        (None, None) => Err(UsageError::new("--model is missing: name an encoder, or `hash`").into()),
    }
}
