//! `bitnet embed` without a further verb: one vector for each text.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::builder::NonEmptyStringValueParser;
use rlm_embed::encoder::BaseEmbedder;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use crate::args::{EmbedderArgs, path_not_stream};
use crate::output::Progress;
use crate::{load, output};

/// Texts that are encoded together.
const BATCH: usize = 64;

#[derive(clap::Args)]
pub(crate) struct TextArgs {
    #[command(flatten)]
    embedder: EmbedderArgs,
    /// A text, given once or several times, in place of the lines of a file
    #[arg(long, allow_hyphen_values = true, conflicts_with = "file")]
    text: Vec<String>,
    /// A file with a text per line, or a .json file with an array of texts; `-` is standard input
    #[arg(long, default_value = "-", value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    file: String,
    /// A safetensors file to write
    #[arg(short, long, value_name = "FILE", value_parser = path_not_stream("a safetensors file cannot go to standard output: write the name of a file"))]
    out: Option<PathBuf>,
}

pub(super) fn execute(args: &TextArgs) -> Result<()> {
    let texts: Vec<String> = match args.text.is_empty() {
        true => read(&args.file)?,
        false => args.text.clone(),
    };
    let (mut embedder, _) = args.embedder.load()?;
    let dims = embedder.dims();
    let progress = Progress::items("encoding");
    let mut all: Vec<f32> = Vec::new();
    for (n, batch) in texts.chunks(BATCH).enumerate() {
        let batch: Vec<&str> = batch.iter().map(String::as_str).collect();
        let vectors = embedder.embed(&batch)?;
        progress.show(((n + 1) * BATCH).min(texts.len()) as u64, texts.len() as u64);
        match args.out {
            Some(_) => all.extend(vectors),
            None => {
                for (text, vector) in batch.iter().zip(vectors.chunks_exact(dims)) {
                    output::raw(json!({ "text": text, "vector": vector }))?;
                }
            }
        }
    }
    drop(progress);
    if let Some(out) = &args.out {
        let bytes: Vec<u8> = all.iter().flat_map(|x| x.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![texts.len(), dims], &bytes)?;
        let file = safetensors::serialize([("vectors", view)], None)?;
        gguf_bitnet::write_atomic(out, &file)?;
        output::note(format_args!("{}: {} vectors of {dims} values", out.display(), texts.len()));
    }
    Ok(())
}

fn read(file: &str) -> Result<Vec<String>> {
    let text = load::read_text(file)?;
    match file.ends_with(".json") {
        true => serde_json::from_str(&text).map_err(|error| anyhow!("{file}: is no array of texts ({error}): mend it")),
        false => Ok(text.lines().map(str::to_owned).collect()),
    }
}
