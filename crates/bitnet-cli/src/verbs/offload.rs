//! `bitnet offload`: coprocessors of an appliance on a serial line, and a stand-in for one.

mod check;
mod line;
mod simulate;

pub(crate) use line::coprocessor;

use anyhow::Result;
use clap::Subcommand;

/// Try the coprocessor of an appliance, or stand in for one.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Check(check::Args),
    Simulate(simulate::Args),
}

pub(crate) fn execute(args: Args) -> Result<()> {
    match args.what {
        What::Check(args) => check::execute(&args),
        What::Simulate(args) => simulate::execute(&args),
    }
}
