//! `bitnet dump`: the numbers inside a forward pass, for comparison with another implementation.
//!
//! The file has the layout of the golden files under `fixtures/goldens`: `input_ids` i64 `[T]`, `logits` f32
//! `[T, vocab]`, `hidden.{i}` f32 `[T, hidden]` (the residual stream before layer i; the last one after the final norm),
//! `router_ids.{l}` i64 and `router_weights.{l}` f32 `[T, top_k]`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use gguf_bitnet::{SafetensorsDir, TensorSource};
use moe_runtime::Session;
use moe_runtime::forward::{At, RoutingDecision, Taps};
use safetensors::{Dtype, tensor::TensorView};

use crate::model::{self, Act, Kv, Threads};
use crate::output;

/// Write logits, hidden states and routing of every position to a safetensors file.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model directory, GGUF file, or name in the local Hugging Face cache
    #[arg(short, long)]
    model: String,
    /// Token ids, for example 1,2,3
    #[arg(long, value_delimiter = ',', required_unless_present = "text", conflicts_with = "text")]
    tokens: Vec<u32>,
    /// A text instead; control tokens in it are understood, nothing is added
    #[arg(long)]
    text: Option<String>,
    /// The file to write
    #[arg(short, long)]
    out: PathBuf,
    /// Activations of ternary, Q8_0 and Q6_K layers
    #[arg(long, value_enum, default_value = "f32")]
    act: Act,
    /// Numbers in the cache
    #[arg(long, value_enum, default_value = "f32")]
    kv: Kv,
    /// Tokens per batch; the results do not depend on it
    #[arg(long, value_name = "N")]
    chunk: Option<NonZeroUsize>,
    /// Replace an existing file that is no earlier dump
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    threads: Threads,
}

/// Runs the verb.
pub(crate) fn execute(args: Args) -> Result<()> {
    let files = model::open(&args.model)?;
    let tokens = match &args.text {
        Some(text) => files.tokenizer()?.encode(text, true)?,
        None => args.tokens,
    };
    if tokens.is_empty() {
        bail!("there are no tokens: give --tokens or a --text that is not empty");
    }
    let out = gguf_bitnet::output_path(&args.out)?;
    if out.exists() && !args.force && !is_replaceable(&out) {
        return Err(gguf_bitnet::Error::from(gguf_bitnet::StoreError::OutputExists).in_file(args.out).into());
    }
    let model = model::load(&files, args.act, args.threads.pool()?)?;
    let mut session = Session::new(model.clone(), tokens.len(), args.kv.into())?;
    if let Some(chunk) = args.chunk {
        session = session.with_chunk(chunk.get());
    }
    let mut dump = Dump::new(model.config().n_layers);
    let mut logits = Vec::new();
    session.step_rows(&tokens, 0, &mut dump, &mut |_, row| {
        logits.extend_from_slice(row);
        Ok(())
    })?;
    if logits.iter().any(|logit| !logit.is_finite()) {
        return Err(model::blame(&files).unwrap_or_else(|| anyhow!("the forward pass gave logits that are no numbers")));
    }
    let mut tensors = dump.tensors;
    tensors.insert("logits".to_owned(), Column::F32(logits));
    tensors.insert("input_ids".to_owned(), Column::I64(tokens.iter().map(|&t| i64::from(t)).collect()));
    write(&out, &tensors, tokens.len())?;
    output::note(format_args!("{} tensors of {} positions in {}", tensors.len(), tokens.len(), out.display()));
    Ok(())
}

/// Whether nobody misses the file: an earlier dump, or one without content.
fn is_replaceable(out: &Path) -> bool {
    let empty = std::fs::metadata(out).is_ok_and(|file| file.is_file() && file.len() == 0);
    let is_dump = |file: SafetensorsDir| ["input_ids", "logits"].iter().all(|name| file.index_of(name).is_some());
    empty || SafetensorsDir::open(out).is_ok_and(is_dump)
}

/// Values of all positions, one after the other.
enum Column {
    F32(Vec<f32>),
    I64(Vec<i64>),
}

/// Collects what passes by.
struct Dump {
    n_layers: usize,
    tensors: BTreeMap<String, Column>,
}

impl Dump {
    fn new(n_layers: usize) -> Self {
        Self { n_layers, tensors: BTreeMap::new() }
    }

    fn add_f32(&mut self, name: String, values: &[f32]) {
        if let Column::F32(column) = self.tensors.entry(name).or_insert_with(|| Column::F32(Vec::new())) {
            column.extend_from_slice(values);
        }
    }
}

impl Taps for Dump {
    fn layer_in(&mut self, at: At, x: &mut [f32]) {
        self.add_f32(format!("hidden.{}", at.layer), x);
    }

    fn final_hidden(&mut self, _first: usize, x: &[f32]) {
        self.add_f32(format!("hidden.{}", self.n_layers), x);
    }

    fn routing(&mut self, at: At, decision: &mut RoutingDecision) {
        self.add_f32(format!("router_weights.{}", at.layer), &decision.weights);
        let ids = self.tensors.entry(format!("router_ids.{}", at.layer)).or_insert_with(|| Column::I64(Vec::new()));
        if let Column::I64(column) = ids {
            column.extend(decision.ids.iter().map(|&id| i64::from(id)));
        }
    }
}

fn write(out: &Path, tensors: &BTreeMap<String, Column>, n_tokens: usize) -> Result<()> {
    let columns = tensors.iter().map(|(name, column)| {
        let (dtype, len, bytes): (_, _, Vec<u8>) = match column {
            Column::F32(v) => (Dtype::F32, v.len(), v.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Column::I64(v) => (Dtype::I64, v.len(), v.iter().flat_map(|x| x.to_le_bytes()).collect()),
        };
        let shape = if name == "input_ids" { vec![len] } else { vec![n_tokens, len / n_tokens] };
        (name.as_str(), dtype, shape, bytes)
    });
    let columns: Vec<_> = columns.collect();
    let views =
        columns.iter().map(|(name, dtype, shape, bytes)| Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?)));
    let views: Vec<_> = views.collect::<Result<_, safetensors::SafeTensorError>>()?;
    gguf_bitnet::write_atomic(out, &safetensors::serialize(views, None)?)?;
    Ok(())
}
