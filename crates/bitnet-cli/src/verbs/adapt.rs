//! `bitnet adapt`: makes a LoRA adapter that brings a student closer to its teacher.

use std::path::PathBuf;

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use gguf_bitnet::{GgufFile, OpenModel, Role, StoreError, TensorType};
use rlm_refine::adapt::{AdaptOptions, Adaptation, adapt};
use rlm_refine::ptq::WindowOptions;
use serde_json::json;

use crate::args::{self, ModelArg, TextArgs, Threads, whole};
use crate::exit::UsageError;
use crate::load;
use crate::output::{self, Progress, size};

/// Make a LoRA adapter that brings a student closer to its teacher.
///
/// Each ternary feed-forward matrix gets an addition of low rank that makes up for its error on the calibration texts; the
/// student itself stays as it is. Use the adapter with --adapter.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// The model that the student was made of
    #[arg(long, value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    teacher: String,
    /// The adapter to write
    #[arg(short, long, value_name = "FILE", value_parser = args::path_not_stream(args::MODEL_OUT))]
    out: PathBuf,
    /// Rank of the addition to each matrix
    #[arg(long, default_value_t = 1, value_name = "R", value_parser = whole::<usize>(1..=64))]
    rank: usize,
    #[command(flatten)]
    texts: TextArgs,
    /// Replace an existing file of another kind; an adapter is replaced without it
    #[arg(long)]
    force: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: Threads,
}

pub(crate) fn execute(args: Args) -> Result<()> {
    if !args.texts.is_given() {
        return Err(UsageError::new("an adapter is made on texts: name them with --calibration").into());
    }
    let student = load::open(&args.model.model)?;
    let teacher = load::open(&args.teacher)?;
    for files in [&student, &teacher] {
        if files.holds(&args.out) {
            let error = rlm_refine::Error::OutputIsSource { path: args.out.display().to_string() };
            return Err(UsageError::new(format!("--out: {error}")).into());
        }
    }
    if args.out.exists() && !args.force && !is_adapter(&args.out) {
        return Err(gguf_bitnet::Error::from(StoreError::OutputExists).in_file(&args.out).into());
    }
    let out = gguf_bitnet::output_path(&args.out)?;
    let pool = args.threads.pool()?;
    let calibration = args.texts.calibration(&student, &pool, WindowOptions::default().max_tokens)?;
    let options = AdaptOptions { rank: args.rank, calibration };
    let progress = Progress::items("adapting layers");
    let Adaptation { adapter, layers } =
        adapt(&teacher, &student, &pool, &options, &mut |done, total| progress.show(done, total))?;
    drop(progress);
    adapter.write(&out, TensorType::F16)?;
    let bytes = GgufFile::open(&out)?.file_bytes();
    if args.json {
        return output::json(&json!({ "out": args.out, "rank": args.rank, "bytes": bytes, "layers": layers }));
    }
    let mut table = output::table(["layer", "ternary matrices", "with an addition", "drift"], 0);
    for layer in &layers {
        table.add_row([
            layer.layer.to_string(),
            layer.matrices.to_string(),
            layer.adapted.to_string(),
            format!("{:.4}", layer.drift),
        ]);
    }
    output::line(table)?;
    let adapted: usize = layers.iter().map(|layer| layer.adapted).sum();
    output::line(format_args!(
        "wrote {} ({}): rank {} for {adapted} matrices",
        args.out.display(),
        size(bytes),
        args.rank
    ))
}

/// Whether the file is an adapter, which may be replaced.
fn is_adapter(path: &std::path::Path) -> bool {
    OpenModel::open(path).is_ok_and(|file| file.role() == Role::Adapter)
}
