//! `bitnet eval`: perplexity and fidelity of models on a text, and figures of recorded traces.

mod fidelity;
mod part;
mod scored;
mod trace;

use anyhow::Result;
use clap::Subcommand;

pub(super) use part::{FIDELITY_JOB, PERPLEXITY_JOB};

/// Measure models on a text, or sum up the trace of a gate run.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Fidelity(fidelity::Args),
    Trace(trace::Args),
}

pub(crate) fn execute(args: Args) -> Result<()> {
    match args.what {
        What::Fidelity(args) => fidelity::execute(&args),
        What::Trace(args) => trace::execute(&args),
    }
}
