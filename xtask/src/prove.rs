//! `cargo xtask prove NAME`: the heavy demonstrations, one file each.
//!
//! A proof checks the disk first, works in a folder of its own that is removed afterwards, prints one PASS or MISS line
//! per figure, and appends the figures to `benches/record/<arch>/<date>.csv`. It fails when a figure misses its target.

mod clock;
mod gates;
mod goldens;
mod interop;
mod kill;
mod perplexity;
mod quantize;
mod record;
mod speed;
mod ternary_forward;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::ValueEnum;
use xshell::cmd;

pub(crate) use record::Record;

use crate::json::Json;
use crate::{Outcome, repo};

/// Which proof, and where it works.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The proof to run.
    #[arg(value_enum)]
    name: Name,
    /// A folder on a disk with enough room; the default is below `target/`.
    #[arg(long)]
    work: Option<PathBuf>,
    /// Leave the files for a look afterwards.
    #[arg(long)]
    keep: bool,
    /// goldens: a folder of reference checkpoints instead of `fixtures/goldens`.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// interop, ternary-forward, speed: a Python with the packages of `fixtures/interop/requirements.txt`.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// quantize: layers of the full-width checkpoint, 4 in the target.
    #[arg(long, default_value_t = 4)]
    layers: u32,
    /// speed: only the file of this preset: phase2, balanced or 8g.
    #[arg(long)]
    preset: Option<String>,
    /// Test this binary instead of building one.
    #[arg(long)]
    bitnet: Option<PathBuf>,
    /// Do not append to benches/record.
    #[arg(long)]
    no_record: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// A 4-layer full-width checkpoint (5.25 GB): peak memory, speed, five kills and resumes.
    Quantize,
    /// `bitnet dump` on every reference checkpoint of a folder against its golden.safetensors.
    Goldens,
    /// Perplexity of the mini teacher on held-out text against transformers.
    Perplexity,
    /// Our files in llama.cpp and in the `gguf` package, and theirs here.
    Interop,
    /// A ternary model of width 2048 in three activation modes against NumPy.
    TernaryForward,
    /// The kill and resume part of `quantize` on a small checkpoint.
    Kill,
    /// The gates on the mini teacher itself, on both suites, with kills, and on two students of it.
    Gates,
    /// Full-size random files (9 GB, one after the other) against the memory bandwidth and llama.cpp.
    Speed,
}

/// One measured figure and its verdict.
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) target: String,
    pub(crate) pass: bool,
}

/// What a proof works with.
struct Proof<'a> {
    args: &'a Args,
    /// An empty folder of its own.
    work: PathBuf,
    record: Option<Record>,
    figures: usize,
    missed: usize,
}

impl Proof<'_> {
    /// Prints the PASS or MISS line of a figure and records it at once: a proof that is cut off keeps what it measured.
    fn figure(&mut self, name: impl Into<String>, value: impl Into<String>, target: impl Into<String>, pass: bool) {
        let figure = Figure { name: name.into(), value: value.into(), target: target.into(), pass };
        let verdict = if pass { "PASS" } else { "MISS" };
        repo::say(&format!("{verdict} {}: {} (target: {})", figure.name, figure.value, figure.target));
        if let Some(Err(error)) = self.record.as_ref().map(|record| record.append(&figure)) {
            repo::complain(&format!("this figure could not be recorded: {error}"));
        }
        self.figures += 1;
        self.missed += usize::from(!pass);
    }

    /// Fails unless the disk under the work folder has `bytes` to spare.
    fn need_disk(&self, bytes: u64) -> Outcome {
        let sh = xshell::Shell::new()?;
        let work = &self.work;
        let table = cmd!(sh, "df -Pk {work}").quiet().read()?;
        let free =
            table.lines().nth(1).and_then(|row| row.split_whitespace().nth(3)).and_then(|kib| kib.parse::<u64>().ok());
        let free = free.ok_or("`df -Pk` did not say how much disk is free")?.saturating_mul(1024);
        if free >= bytes {
            return Ok(());
        }
        let (free, bytes, work) = (repo::bytes(free), repo::bytes(bytes), work.display());
        Err(format!("{work} has {free} free and this needs {bytes}: name a larger disk with --work").into())
    }
}

/// Removes the work folder however the proof ends.
struct Cleanup<'a>(Option<&'a Path>);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        if let Some(dir) = self.0
            && let Err(error) = std::fs::remove_dir_all(dir)
        {
            repo::complain(&format!("could not remove {}: {error}", dir.display()));
        }
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let name = args.name.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
    let parent = args.work.clone().unwrap_or_else(|| repo::root().join("target/prove"));
    let work = std::path::absolute(parent)?.join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&work)?;
    let _cleanup = Cleanup((!args.keep).then_some(work.as_path()));
    let record = (!args.no_record).then(|| Record::open(&name)).transpose()?;
    let mut proof = Proof { args, work: work.clone(), record, figures: 0, missed: 0 };
    let bitnet = repo::bitnet(args.bitnet.as_deref(), "release")?;
    match args.name {
        Name::Quantize => quantize::prove(&mut proof, &bitnet),
        Name::Goldens => goldens::prove(&mut proof, &bitnet),
        Name::Perplexity => perplexity::prove(&mut proof, &bitnet),
        Name::Interop => interop::prove(&mut proof, &bitnet),
        Name::TernaryForward => ternary_forward::prove(&mut proof, &bitnet),
        Name::Kill => kill::prove(&mut proof, &bitnet),
        Name::Gates => gates::prove(&mut proof, &bitnet),
        Name::Speed => speed::prove(&mut proof, &bitnet),
    }?;
    if let Some(record) = &proof.record {
        record.say()?;
    }
    match proof.missed {
        0 if proof.figures == 0 => Err("the proof measured nothing".into()),
        0 => Ok(()),
        missed => Err(format!("{missed} of {} figures missed their target", proof.figures).into()),
    }
}

/// Runs `bitnet` to its end and returns its standard output; its progress goes to the terminal.
fn bitnet(binary: &Path, args: &[&str]) -> Outcome<String> {
    let done = Command::new(binary).args(args).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !done.status.success() {
        return Err(format!("`bitnet {}` ended with {}", args.join(" "), done.status).into());
    }
    Ok(String::from_utf8(done.stdout)?)
}

/// The same, reading what it printed as JSON.
pub(crate) fn bitnet_json(binary: &Path, args: &[&str]) -> Outcome<Json> {
    let text = bitnet(binary, args)?;
    Json::parse(&text).map_err(|e| format!("`bitnet {}` did not print JSON: {e}", args.join(" ")).into())
}

/// A path as an argument; the repository's paths are UTF-8.
fn arg(path: &Path) -> Outcome<&str> {
    path.to_str().ok_or_else(|| format!("{} is not UTF-8", path.display()).into())
}
