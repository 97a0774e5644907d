//! `bitnet offload`: coprocessors of an appliance on a serial line, and a stand-in for one.

mod check;
mod line;
mod simulate;

use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use anyhow::{Context, Result};
use clap::Subcommand;
use rlm_embed::offload::{Coprocessor, Link, OffloadPolicy, StreamLink};

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

/// The coprocessor at the end of the serial line `path`.
///
/// # Errors
/// A path that is no serial line, or one that cannot be used.
pub(crate) fn coprocessor(path: &Path, policy: OffloadPolicy) -> Result<Coprocessor<Box<dyn Link>>> {
    let line = line::open(path)?;
    let writer = line.try_clone().context("cannot use the device")?;
    let link = StreamLink::new(line, writer).context("cannot start a thread")?;
    // A number that no earlier host has counted from, as far as chance allows.
    let sequence = RandomState::new().hash_one(0) as u32;
    Ok(Coprocessor::new(Box::new(link), policy, sequence))
}

pub(crate) fn execute(args: Args) -> Result<()> {
    match args.what {
        What::Check(args) => check::execute(&args),
        What::Simulate(args) => simulate::execute(&args),
    }
}
