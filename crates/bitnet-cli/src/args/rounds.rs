//! `--rounds`: the folder of a calibration that several machines share.

use std::path::PathBuf;

use super::shard::SHARE_OUT;

/// The folder of the rounds, and what is done where parts of it are missing.
#[derive(clap::Args)]
pub(crate) struct RoundArgs {
    /// Share the layers of --method gptq by this folder: with --shard the share of each layer is solved and written into it, without it
    /// the student is made of all parts
    #[arg(long, value_name = "DIR", group = SHARE_OUT)]
    pub(crate) rounds: Option<PathBuf>,
    /// Wait for the parts of the other shards, and go on to the last layer
    #[arg(long, requires = "rounds", conflicts_with = "out")]
    pub(crate) wait: bool,
}
