//! `bitnet man`: the help of all verbs as manual pages.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Command;
use clap_mangen::Man;
use gguf_bitnet::write_atomic;

use crate::{args, output};

/// Write the manual pages of all verbs into a folder.
///
/// `man -l DIR/bitnet-run.1` shows one; packages install them below share/man/man1.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder; it is made where it does not exist
    #[arg(short, long, value_name = "DIR", value_parser = args::path_not_stream("the pages are several files"))]
    out: PathBuf,
}

pub(crate) fn execute(args: Args, mut command: Command) -> Result<()> {
    std::fs::create_dir_all(&args.out)
        .map_err(|error| anyhow::anyhow!("{}: {error}: name a folder that can be written", args.out.display()))?;
    command.build();
    let written = write(&command, "bitnet", &args.out)?;
    output::line(format_args!("{written} manual pages in {}", output::name(&args.out.display().to_string())))
}

/// Writes the page of `command` and those of its verbs; returns their number.
fn write(command: &Command, name: &str, out: &Path) -> Result<usize> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    write_atomic(&out.join(format!("{name}.1")), &page)?;
    let verbs = command.get_subcommands().filter(|verb| verb.get_name() != "help");
    let mut written = 1;
    for verb in verbs {
        written += write(verb, &format!("{name}-{}", verb.get_name()), out)?;
    }
    Ok(written)
}
