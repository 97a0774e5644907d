//! `bitnet inspect`: architecture, sizes, memory and metadata of a model, and whether it can be run, without reading its
//! weights.

mod container;
mod metadata;
mod runs;

use anyhow::Result;
use behavior_eval::report::Stamp;
use clap::builder::NonEmptyStringValueParser;
use comfy_table::Table;
use gguf_bitnet::{Catalog, ClassCount, DiscoveryReport, Metadata, OpenModel};
use moe_runtime::{Error, Guess, LoadError, MemoryPlan, ModelFiles, Session};
use serde_json::{Value, json};

use self::metadata::{metadata_json, print_metadata};
use self::runs::print_runs;
use crate::args::{Kv, whole};
use crate::load;
use crate::output::{self, bits_per_weight, size};

/// Show the architecture, sizes, memory and metadata of a model.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// GGUF file, checkpoint directory, or name in the local Hugging Face cache
    #[arg(value_name = "FILE|DIR", value_parser = NonEmptyStringValueParser::new())]
    model: String,
    /// Print all facts as JSON
    #[arg(long)]
    json: bool,
    /// Every tensor with its type and shape
    #[arg(long)]
    tensors: bool,
    /// Context length that memory is computed for
    #[arg(short, long, default_value_t = 4096, value_name = "N", value_parser = whole::<usize>(1..=u64::MAX))]
    context: usize,
    /// Type of the numbers in the key/value cache
    #[arg(long, value_enum, default_value = "f16")]
    kv: Kv,
}

pub(crate) fn execute(args: Args) -> Result<()> {
    let path = load::locate(&args.model)?;
    let container = OpenModel::open(&path)?;
    match ModelFiles::of(container.clone(), &path) {
        Ok(files) => {
            // Tensors are listed with those of the MTP block, which is not part of plain decoding.
            let with_mtp = if args.tensors { with_mtp(&files) } else { None };
            let facts = Facts::new(&files, with_mtp.as_ref(), &args)?;
            load::note_guesses(&facts.guesses);
            if args.json { output::json(&facts.json(&args)) } else { facts.print(&args) }
        }
        // The file can be read, and its configuration is none that this program computes with.
        Err(error) => container::show(&container, &error, args.json, args.tensors),
    }
}

/// The model with its MTP block, if it has one that can be read; a note says why it cannot be.
fn with_mtp(files: &ModelFiles) -> Option<ModelFiles> {
    let error = match files.with_mtp() {
        Ok(files) => return Some(files),
        Err(Error::InModel { error, .. }) => *error,
        Err(error) => error,
    };
    if !matches!(error, Error::Load(LoadError::NoMtp)) {
        output::note(format_args!("note: the MTP block is not listed: {error}"));
    }
    None
}

/// The facts that are shown, as text or as JSON.
struct Facts<'a> {
    files: &'a ModelFiles,
    /// The tensors that `--tensors` lists.
    listed: &'a Catalog,
    report: DiscoveryReport,
    memory: MemoryPlan,
    kv_bytes_per_token: u64,
    /// The reasons why the model cannot be run; empty for one that can.
    obstacles: Vec<String>,
    guesses: Vec<Guess>,
}

impl<'a> Facts<'a> {
    fn new(files: &'a ModelFiles, with_mtp: Option<&'a ModelFiles>, args: &Args) -> Result<Self> {
        let config = &files.config;
        let ty = args.kv.into();
        let kv_bytes_per_token = (config.n_layers * config.cache_shape().bytes_per_token(ty)) as u64;
        let memory = MemoryPlan::new(config, &files.catalog, args.context, ty, Session::DEFAULT_CHUNK);
        let tokenizer = files.tokenizer();
        let mut obstacles: Vec<String> =
            files.obstacles(tokenizer.as_ref().ok()).iter().map(ToString::to_string).collect();
        obstacles.extend(tokenizer.as_ref().err().map(ToString::to_string));
        let guesses = files.guesses(tokenizer.as_ref().ok());
        let listed = &with_mtp.unwrap_or(files).catalog;
        Ok(Self { files, listed, report: files.report(), memory, kv_bytes_per_token, obstacles, guesses })
    }

    fn metadata(&self) -> Option<&Metadata> {
        self.files.gguf().map(|file| file.metadata())
    }

    fn json(&self, args: &Args) -> Value {
        let config = &self.files.config;
        let mut facts = json!({
            "path": self.files.path(),
            "architecture": config.arch.hf_name(),
            "layers": config.n_layers,
            "dense_layers": config.n_dense,
            "hidden": config.hidden,
            "heads": config.n_heads,
            "vocab": config.vocab,
            "context_limit": config.n_ctx,
            "attention": config.attention.to_string(),
            "experts": config.moe.as_ref().map(|moe| json!({
                "routed": moe.router.n_experts, "active": moe.router.top_k, "shared": moe.n_shared,
            })),
            "params": self.report.params,
            "bytes": self.report.bytes,
            "bits_per_weight": bits_per_weight(self.report.bytes, self.report.params),
            "ternary_bits_per_weight": self.ternary_bits(),
            "classes": self.report.classes,
            "runs": self.obstacles.is_empty(),
            "obstacles": self.obstacles,
            "guesses": self.guesses,
            "complete": self.report.is_exact(),
            "missing": self.report.missing,
            "unexpected": self.report.unexpected,
            "misshaped": self.report.misshaped,
            "skipped": self.report.skipped.len(),
            "kv_bytes_per_token": self.kv_bytes_per_token,
            "memory": {
                "context": args.context,
                "weights_bytes": self.memory.mapped_weights_bytes + self.memory.converted_weights_bytes,
                "cache_bytes": self.memory.cache_bytes,
                "buffer_bytes": self.memory.scratch_bytes,
                "total_bytes": self.memory.total_bytes(),
            },
        });
        if let Some(metadata) = self.metadata() {
            facts["gates"] = match Stamp::read(metadata) {
                Ok(stamp) => json!(stamp),
                Err(error) => json!({ "damaged": error.to_string() }),
            };
            facts["metadata"] = metadata_json(metadata);
        }
        if args.tensors {
            facts["tensors"] =
                self.tensors().map(|(name, ty, shape)| json!({ "name": name, "type": ty, "shape": shape })).collect();
        }
        facts
    }

    fn tensors(&self) -> impl Iterator<Item = (&str, String, &[usize])> {
        let catalog = self.listed;
        catalog.tensors().iter().map(|tensor| {
            let types: Vec<&str> = catalog.storage(tensor).keys().map(|ty| ty.name()).collect();
            (tensor.name.as_str(), types.join("+"), tensor.shape.as_slice())
        })
    }

    fn ternary_bits(&self) -> Option<f64> {
        let ternary = || self.report.classes.iter().filter(|class| class.ty.is_ternary());
        let params = ternary().map(|class| class.params).sum();
        (params > 0).then(|| bits_per_weight(ternary().map(|class| class.bytes).sum(), params))
    }

    fn print(&self, args: &Args) -> Result<()> {
        let config = &self.files.config;
        output::line(format_args!("{}", self.files.path().display()))?;
        let experts = config.moe.as_ref().map_or_else(String::new, |moe| {
            format!(", {} experts ({} active + {} shared)", moe.router.n_experts, moe.router.top_k, moe.n_shared)
        });
        output::line(format_args!(
            "{}: {} layers ({} dense), hidden {}, {} heads, vocabulary {}, context {}{experts}",
            config.arch.hf_name(),
            config.n_layers,
            config.n_dense,
            config.hidden,
            config.n_heads,
            config.vocab,
            config.n_ctx
        ))?;
        output::line(config.attention)?;
        output::line(format_args!(
            "{} weights in {}: {:.4} bits per weight{}",
            self.report.params,
            size(self.report.bytes),
            bits_per_weight(self.report.bytes, self.report.params),
            self.ternary_bits().map_or_else(String::new, |b| format!(", ternary tensors {b:.4}")),
        ))?;
        output::line(class_table(&self.report.classes))?;
        self.print_defects()?;
        print_runs(&self.obstacles)?;
        output::line(format_args!(
            "cache {} per token; with {} tokens: weights {} + cache {} + buffers {} = {}",
            size(self.kv_bytes_per_token),
            args.context,
            size(self.memory.mapped_weights_bytes + self.memory.converted_weights_bytes),
            size(self.memory.cache_bytes),
            size(self.memory.scratch_bytes),
            size(self.memory.total_bytes()),
        ))?;
        if let Some(metadata) = self.metadata() {
            print_stamp(metadata)?;
            print_metadata(metadata)?;
        }
        if args.tensors {
            for (name, ty, shape) in self.tensors() {
                output::line(format_args!("{} {ty} {shape:?}", output::name(name)))?;
            }
        }
        Ok(())
    }

    fn print_defects(&self) -> Result<()> {
        for name in &self.report.missing {
            output::line(format_args!("missing: {name}"))?;
        }
        for name in &self.report.unexpected {
            output::line(format_args!("unexpected: {name}"))?;
        }
        for tensor in &self.report.misshaped {
            output::line(format_args!("wrong shape: {} is {:?}, not {:?}", tensor.name, tensor.got, tensor.expected))?;
        }
        if !self.report.skipped.is_empty() {
            output::line(format_args!("left out: {} tensors of multi-token prediction", self.report.skipped.len()))?;
        }
        Ok(())
    }
}

/// The gate results in the metadata of the file. Only `bitnet verify` reads the weights and tells whether they were measured.
fn print_stamp(metadata: &Metadata) -> Result<()> {
    let stamp = match Stamp::read(metadata) {
        Ok(None) => return Ok(()),
        Ok(Some(stamp)) => stamp,
        Err(error) => return output::line(error),
    };
    let strict = if stamp.strict { ", strict" } else { "" };
    output::line(format_args!(
        "gates: {} on {} ({} prompts{strict}), measured on model {} against teacher {}",
        stamp.verdict,
        output::name(&stamp.suite),
        stamp.prompts,
        short(&stamp.student),
        short(&stamp.teacher)
    ))?;
    for result in &stamp.gates {
        let word = if result.passed() { "pass" } else { "FAIL" };
        let figure = result.figure.map_or_else(
            || "nothing to measure on".to_owned(),
            |f| format!("{:.4} [{:.4}, {:.4}] on {} prompts", f.value, f.low95, f.high95, f.n),
        );
        output::line(format_args!("    {:<20} {word}  {figure}, demanded {}", result.gate.name(), result.demanded()))?;
    }
    Ok(())
}

/// The start of a hash, enough to compare by eye.
fn short(hash: &str) -> String {
    hash.chars().take(16).collect()
}

fn class_table(classes: &[ClassCount]) -> Table {
    let mut table = output::table(["class", "type", "tensors", "weights", "size", "bits/weight"], 2);
    for class in classes {
        table.add_row([
            class.class.name().to_owned(),
            class.ty.name().to_owned(),
            class.tensors.to_string(),
            class.params.to_string(),
            size(class.bytes),
            format!("{:.4}", bits_per_weight(class.bytes, class.params)),
        ]);
    }
    table
}
