//! `bitnet offload simulate`: a coprocessor in software on a pseudo-terminal, with faults.

use anyhow::{Context, Result};
use rlm_embed::offload::{Faults, FaultyStm32, StreamLink};

use super::line::DeviceEnd;
use crate::args::{Seed, seed, whole};
use crate::output;

/// Stand in for a coprocessor on a pseudo-terminal.
///
/// Prints the name of the terminal, which a host opens as it opens a serial line, and ends when the host closes it. A fault happens to so
/// many of 1000 requests or answers, as its option says; with a seed the faults are the same each time.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Answers that arrive 45 ms late
    #[arg(long, default_value = "0", value_name = "N", value_parser = whole::<u64>(0..=1000))]
    delay: u64,
    /// Requests and answers that are lost
    #[arg(long, default_value = "0", value_name = "N", value_parser = whole::<u64>(0..=1000))]
    drop: u64,
    /// Answers that arrive twice
    #[arg(long, default_value = "0", value_name = "N", value_parser = whole::<u64>(0..=1000))]
    duplicate: u64,
    /// Requests and answers with a wrong bit
    #[arg(long, default_value = "0", value_name = "N", value_parser = whole::<u64>(0..=1000))]
    corrupt: u64,
    /// Answers that arrive 8 ms late, behind the next one
    #[arg(long, default_value = "0", value_name = "N", value_parser = whole::<u64>(0..=1000))]
    reorder: u64,
    /// Requests that the device ignores together with the twelve behind them
    #[arg(long, default_value = "0", value_name = "N", value_parser = whole::<u64>(0..=1000))]
    hang: u64,
    /// Requests at which the device restarts and sends garbage
    #[arg(long, default_value = "0", value_name = "N", value_parser = whole::<u64>(0..=1000))]
    reset: u64,
    /// Seed of the faults; -1 draws one
    #[arg(long, default_value = "18", value_name = "N", value_parser = seed)]
    seed: Seed,
}

pub(super) fn execute(args: &Args) -> Result<()> {
    let Args { delay, drop, duplicate, corrupt, reorder, hang, reset, seed } = *args;
    let faults = Faults { delay, drop, duplicate, corrupt, reorder, hang, reset };
    let (end, name) = DeviceEnd::new()?;
    let writer = end.writer()?;
    let mut link = StreamLink::new(end, writer).context("cannot start a thread")?;
    output::line(name)?;
    FaultyStm32::new(faults, seed.number()).serve(&mut link).context("the pseudo-terminal failed")
}
