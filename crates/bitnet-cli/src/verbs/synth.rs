//! `bitnet synth`: models of any size with random weights, for work on speed and memory.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::ValueEnum;
use rlm_refine::synth::{Shape, SyntheticModel};

use crate::model::Threads;
use crate::progress::{Unit, bar};
use crate::verbs::quantize::RecipeArgs;
use crate::{output, size};

/// Write a model with seeded random weights.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// glm-4.7-flash, mini, or a config.json
    #[arg(long)]
    shape: String,
    /// Keep only this many layers (or stretch to them)
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// What to write
    #[arg(long, value_enum, default_value = "gguf")]
    format: Format,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Another seed gives other weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The file, or the directory of a checkpoint, to write
    #[arg(short, long)]
    out: PathBuf,
    /// Replace an existing file
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    threads: Threads,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A checkpoint directory in BF16
    SafetensorsBf16,
    /// A GGUF with the types of the preset
    Gguf,
}

/// Runs the verb.
pub(crate) fn execute(args: Args) -> Result<()> {
    let model = SyntheticModel { shape: Shape::open(&args.shape, args.layers)?, seed: args.seed };
    let pool = args.threads.pool()?;
    let bar = bar(0, Unit::Bytes, "writing");
    let mut progress = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let bytes = match args.format {
        Format::Gguf => model.write_gguf(&args.recipe.recipe(), &pool, &args.out, args.force, &mut progress)?,
        Format::SafetensorsBf16 if args.force => bail!("--force replaces files only: remove the directory yourself"),
        Format::SafetensorsBf16 => model.write_checkpoint(&pool, &args.out, &mut progress)?,
    };
    bar.finish_and_clear();
    output::note(format_args!("{} in {}", size::show(bytes), args.out.display()));
    Ok(())
}
