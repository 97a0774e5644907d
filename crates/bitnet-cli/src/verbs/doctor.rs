//! `bitnet doctor`: the machine, the kernels that run on it, and their self-test.
//!
//! The output goes into reports of problems, so it holds no names of users, hosts or directories.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;
use serde_json::{Value, json};
use ternary_core::ActMode;
use tl_kernels::{HardwareCaps, Isa, KernelRegistry, KernelSelected, Pool, bandwidth};

use crate::args::Act;
use crate::load;
use crate::output::{self, size};

/// Show the machine, its memory bandwidth and the kernels, for the report of a problem.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also choose, try and test the kernels for the tensors of this model
    #[arg(short, long, value_name = "FILE|DIR", value_parser = NonEmptyStringValueParser::new())]
    model: Option<String>,
    /// Type of the activations of ternary, Q8_0 and Q6_K layers
    #[arg(long, value_enum, default_value = "a8-block")]
    act: Act,
    /// Print all facts as JSON
    #[arg(long)]
    json: bool,
}

/// Bytes per second by number of threads.
#[derive(Serialize)]
struct Reading {
    threads: usize,
    bytes_per_s: f64,
}

/// The facts that are shown, as text or as JSON.
struct Findings {
    caps: HardwareCaps,
    /// The value of `TL_ISA`, when it is set.
    wanted: Option<String>,
    readings: Vec<Reading>,
    registry: KernelRegistry,
    mode: ActMode,
    /// The findings about the model, or the message of the error that stopped its load.
    model: Option<Result<ModelFindings, String>>,
}

/// The size of a model and the kernels chosen for it.
struct ModelFindings {
    bytes: u64,
    tensors: usize,
    choices: Vec<KernelSelected>,
}

pub(crate) fn execute(args: Args) -> Result<()> {
    let caps = HardwareCaps::detect();
    let mut readings = Vec::new();
    for threads in if caps.default_threads() > 1 { vec![1, caps.default_threads()] } else { vec![1] } {
        // At least the usual buffer, and four times the last-level cache up to a limit, so that reads come from memory.
        let far = usize::try_from(caps.last_cache_bytes().unwrap_or(0).saturating_mul(4)).unwrap_or(usize::MAX);
        let bytes = bandwidth::BUFFER_BYTES.max(far.min(4 * bandwidth::BUFFER_BYTES));
        readings.push(Reading { threads, bytes_per_s: bandwidth::read_bytes_per_s(&Pool::new(threads)?, bytes)? });
    }
    let findings = Findings {
        caps,
        wanted: std::env::var("TL_ISA").ok().map(|name| name.chars().filter(|c| !c.is_control()).take(32).collect()),
        readings,
        registry: KernelRegistry::current(),
        mode: args.act.into(),
        model: args.model.as_deref().map(|spec| examine(spec, args.act).map_err(|error| anonymous(&error, spec))),
    };
    if args.json { output::json(&findings.json()) } else { findings.print() }
}

/// Loads the model, which chooses, tries and tests the kernels.
fn examine(spec: &str, act: Act) -> Result<ModelFindings> {
    let files = load::open(spec)?;
    let options = load::options(&files, Some(act.into()), None, false, Arc::new(Pool::serial()));
    let loaded = load::load_without_warnings(&files, &options, &mut |_, _| {})?;
    let tensors = files.catalog.tensors();
    let bytes = tensors.iter().flat_map(|t| files.catalog.storage(t).into_values()).map(|(_, bytes)| bytes).sum();
    Ok(ModelFindings { bytes, tensors: tensors.len(), choices: loaded.kernels().to_vec() })
}

/// An error without the directories of the user.
fn anonymous(error: &anyhow::Error, spec: &str) -> String {
    let given = Path::new(spec).parent().map(Path::to_path_buf);
    let found = load::locate(spec).ok().and_then(|path| Some(path.parent()?.to_path_buf()));
    let directories = [found, given].into_iter().flatten().map(|dir| dir.display().to_string());
    directories.filter(|dir| !dir.is_empty()).fold(error.to_string(), |text, dir| text.replace(&dir, ".."))
}

impl Findings {
    fn json(&self) -> Value {
        let caps = &self.caps;
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "os": std::env::consts::OS,
            "arch": caps.arch,
            "cpu": caps.cpu,
            "features": caps.features,
            "isa": { "hardware": caps.isa.name(), "in_force": Isa::current().name(), "tl_isa": self.wanted },
            "cores": {
                "logical": caps.logical_cores, "physical": caps.physical_cores,
                "packages": caps.packages, "numa_nodes": caps.numa_nodes, "default_threads": caps.default_threads(),
            },
            "caches": caps.caches.iter().map(|c| json!({
                "level": c.level, "kind": c.kind, "bytes": c.bytes, "shared_by": c.shared_by,
            })).collect::<Vec<_>>(),
            "pages": {
                "bytes": caps.page_bytes, "huge_bytes": caps.huge_page_bytes,
                "transparent_huge": caps.transparent_huge_pages,
            },
            "read_bandwidth": self.readings,
            "kernels": KernelRegistry::weight_types().map(|weights| json!({
                "weights": weights,
                "kernels": self.kernels(weights),
                "isa": self.registry.levels().iter().map(|isa| isa.name()).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "model": self.model.as_ref().map(|model| match model {
                Ok(model) => json!({
                    "bytes": model.bytes,
                    "tensors": model.tensors,
                    "kernels": model.choices.iter().map(choice_json).collect::<Vec<_>>(),
                }),
                Err(error) => json!({ "error": error }),
            }),
        })
    }

    /// Names of the kernels for a type of weights, the default first.
    fn kernels(&self, weights: &str) -> Vec<&'static str> {
        self.registry.kernels(weights, self.mode).map(|kernel| kernel.name()).collect()
    }

    fn print(&self) -> Result<()> {
        let caps = &self.caps;
        let known = |n: Option<usize>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
        output::line(format_args!(
            "bitnet {} on {} {}: {}",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            caps.arch,
            caps.cpu.as_deref().unwrap_or("unknown processor")
        ))?;
        output::line(format_args!(
            "cores: {} physical, {} usable, {} packages, {} memory nodes; {} threads by default",
            known(caps.physical_cores),
            caps.logical_cores,
            known(caps.packages),
            known(caps.numa_nodes),
            caps.default_threads()
        ))?;
        let caches = caps.caches.iter().map(|c| {
            let kind = c.kind.chars().next().filter(|_| c.kind != "Unified").map(|k| k.to_ascii_lowercase());
            format!("L{}{} {}", c.level, kind.map_or_else(String::new, String::from), size(c.bytes))
        });
        output::line(format_args!("caches: {}", or_unknown(caches.collect())))?;
        output::line(format_args!(
            "pages: {}, huge {} ({})",
            caps.page_bytes.map_or_else(|| "?".to_owned(), size),
            caps.huge_page_bytes.map_or_else(|| "?".to_owned(), size),
            caps.transparent_huge_pages.as_deref().unwrap_or("unknown")
        ))?;
        let wanted = self.wanted.as_ref().map_or_else(String::new, |name| format!(" (TL_ISA={name})"));
        output::line(format_args!(
            "instruction sets: {}; highest level {}, in force {}{wanted}",
            or_unknown(caps.features.iter().map(ToString::to_string).collect()),
            caps.isa,
            Isa::current()
        ))?;
        let readings =
            self.readings.iter().map(|r| format!("{:.1} GB/s on {} threads", r.bytes_per_s / 1e9, r.threads));
        output::line(format_args!("memory reads: {}", or_unknown(readings.collect())))?;
        for (what, sample) in [("dense", "F16"), ("ternary", "TQ2_0")] {
            output::line(format_args!("kernels for {what} weights: {}", self.kernels(sample).join(", ")))?;
        }
        match &self.model {
            None => Ok(()),
            Some(Ok(model)) => model.print(),
            Some(Err(error)) => output::line(format_args!("model: {error}")),
        }
    }
}

impl ModelFindings {
    fn print(&self) -> Result<()> {
        output::line(format_args!("model: {} tensors, {}", self.tensors, size(self.bytes)))?;
        let headings = ["weights", "columns", "kernel", "level", "chosen by", "self-test"];
        let mut table = output::table(headings, headings.len());
        for choice in &self.choices {
            let verdict = match choice.refused.len() {
                0 => "passed".to_owned(),
                n => format!("passed after {n} refused"),
            };
            table.add_row([
                choice.weights,
                &choice.cols.to_string(),
                choice.kernel.name(),
                choice.isa.name(),
                choice.reason.name(),
                &verdict,
            ]);
        }
        output::line(table)?;
        output::line("`run` and `bench` then pack ternary weights as tiles where the memory allows (--layout)")?;
        for warning in self.choices.iter().filter_map(load::self_test_warning) {
            output::line(warning)?;
        }
        Ok(())
    }
}

fn choice_json(choice: &KernelSelected) -> Value {
    json!({
        "weights": choice.weights, "cols": choice.cols, "kernel": choice.kernel.name(), "isa": choice.isa.name(),
        "reason": choice.reason.name(), "self_test": if choice.refused.is_empty() { "passed" } else { "fell back" },
        "refused": choice.refused,
    })
}

fn or_unknown(parts: Vec<String>) -> String {
    if parts.is_empty() { "unknown".to_owned() } else { parts.join(", ") }
}
