//! `bitnet synth`: models of any size with random weights, for work on speed and memory.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::ValueEnum;
use clap::builder::NonEmptyStringValueParser;
use rlm_refine::Error;
use rlm_refine::synth::{Shape, SyntheticModel};
use tl_kernels::Pool;

use crate::args::{MODEL_OUT, RecipeArgs, Seed, Threads, path_not_stream, seed, whole};
use crate::exit::UsageError;
use crate::output::{self, Progress, size};

/// Write a model with seeded random weights.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The shape: glm-4.7-flash, mini, or a config.json
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    shape: String,
    /// Number of layers, in place of that of the shape
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..=u64::MAX))]
    layers: Option<usize>,
    /// The kind of file to write
    #[arg(long, value_enum, default_value = "gguf")]
    format: Format,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// A checkpoint directory whose tokenizer a GGUF gets (default: the file has no words)
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Seed of the weights; -1 draws one and prints it
    #[arg(long, default_value = "0", value_parser = seed)]
    seed: Seed,
    /// The file, or the directory of a checkpoint, to write
    #[arg(short, long, value_name = "PATH", value_parser = path_not_stream(MODEL_OUT))]
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

pub(crate) fn execute(args: Args) -> Result<()> {
    if args.force && args.format == Format::SafetensorsBf16 {
        return Err(UsageError::new(
            "--force replaces files only: remove the directory yourself, or leave out --format safetensors-bf16",
        )
        .into());
    }
    if let (Format::SafetensorsBf16, Some(option)) = (args.format, args.recipe.given()) {
        let sentence = format!("{option} chooses the types of a GGUF: leave it out, or --format safetensors-bf16");
        return Err(UsageError::new(sentence).into());
    }
    if args.tokenizer.is_some() && args.format == Format::SafetensorsBf16 {
        let sentence = "--tokenizer goes into a GGUF: copy tokenizer.json into the checkpoint instead";
        return Err(UsageError::new(sentence).into());
    }
    let pool = args.threads.pool()?;
    let bytes = write(&args, &pool).map_err(|error| usage(&args.shape, error))?;
    output::note(format_args!("{} in {}", size(bytes), args.out.display()));
    Ok(())
}

fn write(args: &Args, pool: &Pool) -> rlm_refine::Result<u64> {
    let real = |path: &Path| path.canonicalize().ok();
    if real(&args.out).is_some_and(|out| real(Path::new(&args.shape)) == Some(out)) {
        return Err(Error::OutputIsSource { path: args.out.display().to_string() });
    }
    let (shape, seed) = (Shape::open(&args.shape, args.layers)?, args.seed.number());
    let model = SyntheticModel { shape, seed, tokenizer: args.tokenizer.clone() };
    let progress = Progress::bytes("writing");
    let mut show = |done, total| progress.show(done, total);
    match args.format {
        Format::Gguf => model.write_gguf(&args.recipe.recipe(), pool, &args.out, args.force, &mut show),
        Format::SafetensorsBf16 => model.write_checkpoint(pool, &args.out, &mut show),
    }
}

/// Turns an error that depends on the content of no file into one about the option: an output that is the shape's file, and
/// a wrong option for a built-in shape.
fn usage(shape: &str, error: Error) -> anyhow::Error {
    let option = match error {
        Error::OutputIsSource { .. } => "--out",
        Error::Shape { .. } if Shape::is_built_in(shape) => "--layers",
        Error::Recipe(_) if Shape::is_built_in(shape) => "--tensor-type",
        _ => return error.into(),
    };
    UsageError::new(format!("{option}: {error}")).into()
}
