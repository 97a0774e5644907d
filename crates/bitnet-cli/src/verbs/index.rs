//! `bitnet index`: texts and their vectors in a file, and the search in it.

mod change;
mod intake;
mod query;

pub(crate) use change::note_void;

use anyhow::Result;
use clap::Subcommand;

/// Keep texts with their vectors in a file, and search it.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Build(change::BuildArgs),
    Add(change::AddArgs),
    Remove(change::RemoveArgs),
    Query(query::Args),
}

pub(crate) fn execute(args: Args) -> Result<()> {
    match args.what {
        What::Build(args) => change::build(&args),
        What::Add(args) => change::add(&args),
        What::Remove(args) => change::remove(&args),
        What::Query(args) => query::execute(&args),
    }
}
