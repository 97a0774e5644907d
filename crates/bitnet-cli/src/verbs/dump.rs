//! `bitnet dump`: writes the numbers inside a forward pass to a safetensors file.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use clap::builder::NonEmptyStringValueParser;
use gguf_bitnet::{SafetensorsDir, TensorSource};
use moe_runtime::{ModelFiles, Session};
use rlm_refine::measure::{Column, ForwardRecord};
use safetensors::{Dtype, tensor::TensorView};

use crate::args::{Act, AdapterArgs, AllowZero, FfnAct, Kv, ModelArg, Threads, whole};
use crate::exit::UsageError;
use crate::{load, output};

/// Write logits, hidden states and routing of every position to a safetensors file.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// Token ids, for example 1,2,3
    #[arg(long, value_delimiter = ',', required_unless_present = "text", conflicts_with = "text", value_name = "ID,..", value_parser = whole::<u32>(0..=u64::from(u32::MAX)))]
    tokens: Vec<u32>,
    /// A text instead of token ids; no token is added to it
    #[arg(long, allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    text: Option<String>,
    /// Encode control tokens such as <|user|> in the text as tokens, not as ordinary characters
    #[arg(long, conflicts_with = "tokens")]
    parse_special: bool,
    /// The file to write; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Type of the activations of ternary, Q8_0 and Q6_K layers (default: as the model was trained, else f32)
    #[arg(long, value_enum)]
    act: Option<Act>,
    #[command(flatten)]
    adapters: AdapterArgs,
    #[command(flatten)]
    ffn_act: FfnAct,
    /// Type of the numbers in the key/value cache
    #[arg(long, value_enum, default_value = "f32")]
    kv: Kv,
    /// Tokens per batch; the results do not depend on it
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..=u64::MAX))]
    chunk: Option<usize>,
    /// Replace an existing file that is no earlier dump
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    zero: AllowZero,
    #[command(flatten)]
    threads: Threads,
}

pub(crate) fn execute(args: Args) -> Result<()> {
    let mut files = load::open(&args.model.model)?;
    args.ffn_act.apply(&mut files);
    load::note_guesses(&files.config.guesses);
    let tokens = match &args.text {
        Some(text) => files.tokenizer()?.encode(text, args.parse_special)?,
        None => args.tokens.clone(),
    };
    if tokens.is_empty() {
        bail!("the model makes no tokens of this --text: give another one, or --tokens");
    }
    let out = destination(&args, &files)?;
    let adapters = args.adapters.slot(&files)?;
    let options = load::measured(&files, args.act, args.zero.allow_zero, args.threads.pool()?);
    let model = Arc::new(load::load(&files, &options)?);
    let mut session = Session::new(model, tokens.len(), args.kv.into())?.with_adapters(adapters);
    if let Some(chunk) = args.chunk {
        session = session.with_chunk(chunk);
    }
    let record = ForwardRecord::new(&mut session, &tokens)?;
    if !record.is_finite() {
        let unknown = || anyhow!("the forward pass gave logits that are NaN or infinite");
        return Err(load::first_defect(&files).unwrap_or_else(unknown));
    }
    let dump = serialize(&record)?;
    match &out {
        Some(file) => gguf_bitnet::write_atomic(file, &dump)?,
        None => output::bytes(&dump)?,
    }
    let place = out.map_or_else(|| "standard output".to_owned(), |file| file.display().to_string());
    output::note(format_args!("{} tensors of {} positions in {place}", record.columns().len(), tokens.len()));
    Ok(())
}

/// The file to write; `None` for standard output.
fn destination(args: &Args, files: &ModelFiles) -> Result<Option<PathBuf>> {
    if args.out == Path::new("-") {
        if std::io::stdout().is_terminal() {
            let sentence = "--out: a dump is no text for a terminal: redirect standard output, or name a file";
            return Err(UsageError::new(sentence).into());
        }
        return Ok(None);
    }
    let out = gguf_bitnet::output_path(&args.out)?;
    if files.holds(&args.out) {
        let error = rlm_refine::Error::OutputIsSource { path: out.display().to_string() };
        return Err(UsageError::new(format!("--out: {error}")).into());
    }
    if out.exists() && !args.force && !is_replaceable(&out) {
        return Err(gguf_bitnet::Error::from(gguf_bitnet::StoreError::OutputExists).in_file(&args.out).into());
    }
    Ok(Some(out))
}

/// Whether the file may be replaced without `--force`: an earlier dump, or an empty file.
fn is_replaceable(out: &Path) -> bool {
    let empty = std::fs::metadata(out).is_ok_and(|file| file.is_file() && file.len() == 0);
    let is_dump = |file: SafetensorsDir| ["input_ids", "logits"].iter().all(|name| file.index_of(name).is_some());
    empty || SafetensorsDir::open(out).is_ok_and(is_dump)
}

/// The record as a safetensors file.
fn serialize(record: &ForwardRecord) -> Result<Vec<u8>> {
    let columns = record.columns().map(|(name, shape, column)| {
        let (dtype, bytes): (_, Vec<u8>) = match column {
            Column::F32(values) => (Dtype::F32, values.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Column::I64(values) => (Dtype::I64, values.iter().flat_map(|x| x.to_le_bytes()).collect()),
        };
        (name, dtype, shape, bytes)
    });
    let columns: Vec<_> = columns.collect();
    let views =
        columns.iter().map(|(name, dtype, shape, bytes)| Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?)));
    let views: Vec<_> = views.collect::<Result<_, safetensors::SafeTensorError>>()?;
    Ok(safetensors::serialize(views, None)?)
}
