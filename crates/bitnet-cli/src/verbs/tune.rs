//! `bitnet tune`: sizes of a server against memory and speed on this machine, and the command line of the best one.
//!
//! The speed is the bound that the memory bandwidth sets: every step reads the weights of its tokens once, and the cache of
//! each sequence. Measured speeds are below it; `bitnet bench` measures.

use anyhow::{Result, bail};
use clap::builder::NonEmptyStringValueParser;
use gguf_bitnet::TensorClass;
use mla_attention::CacheType;
use moe_runtime::{MemoryPlan, ModelFiles, Session};
use serde::Serialize;
use tl_kernels::{HardwareCaps, Pool, bandwidth};

use crate::args;
use crate::load;
use crate::output::{self, size};

/// Contexts that are looked at, up to the one that the model was made for.
const CONTEXTS: [usize; 6] = [2048, 4096, 8192, 16_384, 32_768, 65_536];
const SLOTS: [usize; 3] = [1, 2, 4];
/// The memory that is left to the system where no limit is given.
const SPARE_BYTES: u64 = 1 << 30;

/// Show what a server takes and reaches on this machine, and how to start it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model directory, GGUF file, or name in the local Hugging Face cache
    #[arg(value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    model: String,
    /// Memory that the server may take (default: what is available, but for 1 GiB)
    #[arg(long, value_name = "SIZE", value_parser = args::size)]
    memory: Option<u64>,
    /// Print all figures as JSON
    #[arg(long)]
    json: bool,
}

/// The figures of all sizes.
#[derive(Serialize)]
struct Report {
    model: String,
    allowed_bytes: u64,
    read_bandwidth_bytes_per_s: f64,
    settings: Vec<Setting>,
    /// The command line of the setting that is recommended; absent where none fits.
    command: Option<String>,
}

/// One size of a server.
#[derive(Clone, Serialize)]
struct Setting {
    kv: &'static str,
    slots: usize,
    context: usize,
    memory_bytes: u64,
    fits: bool,
    /// Tokens per second of one answer alone, and of all slots together, with half of the context full: upper bounds.
    one_answer_per_s: f64,
    all_slots_per_s: f64,
}

pub(crate) fn execute(args: &Args) -> Result<()> {
    let files = load::open(&args.model)?;
    let allowed = match args.memory.or_else(|| gguf_bitnet::available_bytes().map(|b| b.saturating_sub(SPARE_BYTES))) {
        Some(allowed) => allowed,
        None => bail!("the free memory of this system is not known: give a limit with --memory"),
    };
    let pool = Pool::new(HardwareCaps::detect().default_threads())?;
    let bandwidth = bandwidth::read_bytes_per_s(&pool, bandwidth::BUFFER_BYTES)?;
    let settings = settings(&files, allowed, bandwidth);
    let command = recommended(&settings).map(|s| {
        let Setting { kv, slots, context, .. } = s;
        format!("bitnet serve -m {} --memory {allowed} --slots {slots} -c {context} --kv {kv}", args.model)
    });
    let report = Report {
        model: args.model.clone(),
        allowed_bytes: allowed,
        read_bandwidth_bytes_per_s: bandwidth,
        settings,
        command,
    };
    if args.json { output::json(&report) } else { report.print() }
}

fn settings(files: &ModelFiles, allowed: u64, bandwidth: f64) -> Vec<Setting> {
    let config = &files.config;
    let contexts = CONTEXTS.iter().copied().filter(|&n| n < config.n_ctx).chain([config.n_ctx.min(131_072)]);
    let mut settings = Vec::new();
    for context in contexts {
        for (kv, ty) in [("f16", CacheType::F16), ("i8", CacheType::I8)] {
            let plan = MemoryPlan::new(config, &files.catalog, context, ty, Session::DEFAULT_CHUNK);
            let token_bytes = (config.n_layers * config.cache_shape().bytes_per_token(ty)) as f64;
            for slots in SLOTS {
                let memory_bytes = plan.with_sequences(config, slots).total_bytes();
                let per_s = |n: usize| {
                    let cache = n as f64 * token_bytes * context as f64 / 2.0;
                    n as f64 * bandwidth / (step_bytes(files, n) + cache)
                };
                let (one_answer_per_s, all_slots_per_s) = (per_s(1), per_s(slots));
                let fits = memory_bytes <= allowed;
                settings.push(Setting { kv, slots, context, memory_bytes, fits, one_answer_per_s, all_slots_per_s });
            }
        }
    }
    settings
}

/// Bytes of weights that a step of `n` sequences reads: all but an embedding that is not the head too, and the routed experts that `n` tokens choose on
/// average when they choose independently.
fn step_bytes(files: &ModelFiles, n: usize) -> f64 {
    let share = files.config.moe.as_ref().map_or(1.0, |moe| {
        let chosen = moe.router.top_k as f64 / moe.router.n_experts as f64;
        1.0 - (1.0 - chosen).powi(i32::try_from(n).unwrap_or(i32::MAX))
    });
    let has_head = files.catalog.tensors().iter().any(|tensor| tensor.class == TensorClass::Head);
    let mut bytes = 0.0;
    for tensor in files.catalog.tensors() {
        let stored: u64 = files.catalog.storage(tensor).into_values().map(|(_, bytes)| bytes).sum();
        bytes += match tensor.class {
            TensorClass::RoutedExpert => share * stored as f64,
            TensorClass::Embedding if has_head => 0.0,
            _ => stored as f64,
        };
    }
    bytes
}

/// The setting with the largest context that fits; of those the one with two slots before one or four, and F16 before INT8.
fn recommended(settings: &[Setting]) -> Option<&Setting> {
    let rank = |s: &&Setting| (s.context, s.slots == 2, s.slots == 4, s.kv == "f16");
    settings.iter().filter(|s| s.fits).max_by_key(rank)
}

impl Report {
    fn print(&self) -> Result<()> {
        let bandwidth = self.read_bandwidth_bytes_per_s / 1e9;
        output::line(format_args!("memory {} to use, read bandwidth {bandwidth:.1} GB/s", size(self.allowed_bytes)))?;
        let mut table =
            output::table(["context", "slots", "kv", "memory", "fits", "one answer tok/s <=", "all slots tok/s <="], 0);
        for s in &self.settings {
            table.add_row([
                s.context.to_string(),
                s.slots.to_string(),
                s.kv.to_owned(),
                size(s.memory_bytes),
                if s.fits { "yes" } else { "no" }.to_owned(),
                format!("{:.1}", s.one_answer_per_s),
                format!("{:.1}", s.all_slots_per_s),
            ]);
        }
        output::line(table)?;
        match &self.command {
            Some(command) => output::line(command),
            None => output::line("nothing fits: raise --memory, or choose a smaller model"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Setting, recommended};

    #[test]
    fn the_largest_context_that_fits_is_recommended_with_two_slots() {
        let setting = |context, slots, kv, fits| Setting {
            kv,
            slots,
            context,
            memory_bytes: 0,
            fits,
            one_answer_per_s: 0.0,
            all_slots_per_s: 0.0,
        };
        let all = [
            setting(4096, 2, "f16", true),
            setting(8192, 1, "f16", true),
            setting(8192, 2, "i8", true),
            setting(8192, 4, "f16", true),
            setting(16_384, 1, "i8", false),
        ];
        let best = recommended(&all).unwrap();
        assert_eq!((best.context, best.slots, best.kv), (8192, 2, "i8"));
        assert!(recommended(&all[4..]).is_none());
    }
}
