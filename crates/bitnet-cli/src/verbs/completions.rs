//! `bitnet completions`: what a shell needs to complete command lines.

use anyhow::Result;
use clap::Command;
use clap_complete::Shell;

use crate::output;

/// Print the completions of a shell.
///
/// For example `bitnet completions bash > ~/.local/share/bash-completion/completions/bitnet`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The shell that reads the script
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn execute(args: Args, mut command: Command) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "bitnet", &mut script);
    output::bytes(&script)
}
