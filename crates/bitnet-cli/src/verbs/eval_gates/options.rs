//! The options of `eval-gates`, and what they make of a run.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use behavior_eval::gates::{BehavioralGate, GateThresholds, RefusalSignals};
use behavior_eval::labels::{Perturbation, Removal};
use behavior_eval::records::artifact::Columns;
use behavior_eval::run::GateRunConfig;
use clap::ValueEnum;

use crate::model::{Act, Kv, Threads};

/// Largest file of refusal signals that is read, in bytes.
const MAX_SIGNAL_BYTES: u64 = 1 << 20;

/// How the teacher computes: as a reference.
pub(super) const TEACHER: (Act, Kv) = (Act::F32, Kv::F32);

/// Decide whether a student may be called ready.
///
/// Teacher and student answer a suite of prompts; the student ships when its routing, citations and refusals pass every
/// gate. Exit code 0: it ships; 3: a gate failed, or a figure fell behind the baseline; 1: there is no verdict.
/// Interrupt it at any time: the same command goes on where it was and ends with the same report.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The teacher: model directory, GGUF file, or name in the local Hugging Face cache
    #[arg(long, value_name = "MODEL")]
    pub(super) teacher: String,
    /// The student
    #[arg(long, value_name = "MODEL")]
    pub(super) student: String,
    /// The prompts, one JSON object per line
    #[arg(long, value_name = "FILE")]
    pub(super) suite: PathBuf,
    /// Their chunks of text, one JSON object per line
    #[arg(long, value_name = "FILE")]
    pub(super) corpus: PathBuf,
    /// Where what the teacher did is kept, to be used again
    #[arg(long, value_name = "DIR", default_value = "eval/artifacts")]
    pub(super) artifacts: PathBuf,
    /// Where the report goes (default: eval/reports/STUDENT_SUITE)
    #[arg(long, value_name = "DIR")]
    pub(super) report: Option<PathBuf>,
    /// Take this share of the evidence away and see whether the figures hold, for example 0.1
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(super) perturb: Option<f64>,
    /// Which evidence goes
    #[arg(long, value_enum, default_value = "random", requires = "perturb")]
    pub(super) perturb_mode: Mode,
    /// Seed of the choice
    #[arg(long, value_name = "N", default_value_t = 0, requires = "perturb")]
    pub(super) perturb_seed: u64,
    /// Demand that the lower end of each figure's 95 % interval passes
    #[arg(long)]
    pub(super) strict: bool,
    /// Demand something else of a gate, for example must_answer=0.99
    #[arg(long = "threshold", value_name = "GATE=VALUE", value_parser = threshold)]
    pub(super) thresholds: Vec<(BehavioralGate, f64)>,
    /// Fewest prompts that a figure may rest on
    #[arg(long, value_name = "N", default_value_t = GateThresholds::default().min_samples, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) min_prompts: u64,
    /// Change when evidence makes a label (disagreement above 0.4: contested, redundancy above 3: resolved, fragility
    /// above 0.7: indeterminate), for example redundancy=2; matters where the suite has no labels, and with --perturb
    #[arg(long = "label-threshold", value_name = "SIGNAL=VALUE", value_parser = label_threshold)]
    pub(super) label_thresholds: Vec<(String, f64)>,
    /// What makes an answer a refusal, instead of the built-in phrases: one phrase or tag in angle brackets per line
    #[arg(long, value_name = "FILE")]
    pub(super) refusal_signals: Option<PathBuf>,
    /// An earlier report.json: fail where a figure fell behind it
    #[arg(long, value_name = "FILE", conflicts_with = "filter_failing")]
    pub(super) baseline: Option<PathBuf>,
    /// Run only the prompts that something was wrong with in the last report; decides nothing
    #[arg(long, conflicts_with_all = ["perturb", "stamp"])]
    pub(super) filter_failing: bool,
    /// Write the result into the metadata of the student, which stays the same model
    #[arg(long)]
    pub(super) stamp: bool,
    /// Do not record what the teacher's routers read, by far the most of a recording; local routing is then not measured
    #[arg(long)]
    pub(super) no_router_inputs: bool,
    /// Most tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) max_new_tokens: u16,
    /// Activations of the student's ternary, Q8_0 and Q6_K layers
    #[arg(long, value_enum, default_value = "f32")]
    pub(super) act: Act,
    /// Numbers in the student's cache
    #[arg(long, value_enum, default_value = "f32")]
    pub(super) kv: Kv,
    /// The report as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) threads: Threads,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Mode {
    /// Any chunk, each as likely as the other
    Random,
    /// The same share of every source
    Stratified,
    /// First the chunks whose answer has the fewest sources
    Fragile,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share < 1.0);
    share.ok_or_else(|| format!("`{text}` is no share; write a number between 0 and 1, for example 0.1"))
}

fn label_threshold(text: &str) -> Result<(String, f64), String> {
    let (signal, value) = assignment(text, "SIGNAL=VALUE")?;
    behavior_eval::labels::LabelThresholds::default().set(signal, value).map_err(|error| error.to_string())?;
    Ok((signal.to_owned(), value))
}

fn threshold(text: &str) -> Result<(BehavioralGate, f64), String> {
    let (gate, value) = assignment(text, "GATE=VALUE")?;
    let gate: BehavioralGate = gate.parse().map_err(|error: behavior_eval::Error| error.to_string())?;
    GateThresholds::default().set(gate, value).map_err(|error| error.to_string())?;
    Ok((gate, value))
}

/// A name and a number.
fn assignment<'a>(text: &'a str, form: &str) -> Result<(&'a str, f64), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`; write {form}"))?;
    Ok((name, value.parse().map_err(|_| format!("`{value}` is no number"))?))
}

/// How the suite is asked and judged.
///
/// # Errors
/// A file of refusal signals that cannot be read or holds none.
pub(super) fn config(args: &Args) -> Result<GateRunConfig> {
    let mut thresholds = GateThresholds::default();
    thresholds.min_samples = args.min_prompts;
    for &(gate, value) in &args.thresholds {
        thresholds.set(gate, value).expect("checked when the command line was read");
    }
    let mut labels = behavior_eval::labels::LabelThresholds::default();
    for (signal, value) in &args.label_thresholds {
        labels.set(signal, *value).expect("checked when the command line was read");
    }
    let signals = args.refusal_signals.as_deref().map(read_signals).transpose()?.unwrap_or_default();
    let removal = match args.perturb_mode {
        Mode::Random => Removal::Random,
        Mode::Stratified => Removal::StratifiedBySource,
        Mode::Fragile => Removal::MostFragileFirst,
    };
    Ok(GateRunConfig {
        max_new_tokens: usize::from(args.max_new_tokens),
        strict: args.strict,
        thresholds,
        perturbation: args.perturb.map(|fraction| Perturbation { fraction, removal, seed: args.perturb_seed }),
        compute: compute(args.act, args.kv),
        teacher_compute: compute(TEACHER.0, TEACHER.1),
        columns: Columns { router_inputs: !args.no_router_inputs, ..Columns::default() },
        labels,
        signals,
    })
}

fn read_signals(path: &Path) -> Result<RefusalSignals> {
    let text = read_text(path, MAX_SIGNAL_BYTES)?;
    RefusalSignals::parse(&text).map_err(|error| anyhow!("{}: {error}", path.display()))
}

/// A file of at most `most` bytes.
///
/// # Errors
/// A larger file, one that cannot be read, one that is no text.
pub(super) fn read_text(path: &Path, most: u64) -> Result<String> {
    let failed = |error: std::io::Error| anyhow!("cannot read {}: {error}", path.display());
    let mut text = String::new();
    // What a file says of its length need not be true: a device has none.
    let read = File::open(path).and_then(|file| file.take(most.saturating_add(1)).read_to_string(&mut text));
    if text.len() as u64 > most {
        return Err(anyhow!("{} has more than {most} bytes, and far less are enough", path.display()));
    }
    read.map_err(failed)?;
    Ok(text)
}

/// How a model computes, in the words of the command line.
fn compute(act: Act, kv: Kv) -> String {
    let name =
        |value: Option<clap::builder::PossibleValue>| value.map_or_else(String::new, |v| v.get_name().to_owned());
    format!("activations {}, cache {}", name(act.to_possible_value()), name(kv.to_possible_value()))
}
