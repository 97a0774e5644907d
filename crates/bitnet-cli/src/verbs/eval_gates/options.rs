//! The options of `eval-gates`.

use std::path::PathBuf;

use behavior_eval::gates::{BehavioralGate, GateError, GateThresholds};
use clap::ValueEnum;
use clap::builder::NonEmptyStringValueParser;

use crate::args::{
    self, Act, AdapterArgs, AllowZero, Kv, MODEL_OUT, STORE, SUITE_FILE, ShardArgs, Threads, fraction, path_not_stream,
    whole,
};

const FOLDER: &str = "it is a folder of several files: write its name; --json prints the report to standard output";

/// The precision of the teacher, which is the reference.
pub(super) const TEACHER: (Act, Kv) = (Act::F32, Kv::F32);

/// Decide whether a student may be called ready.
///
/// Teacher and student answer a suite of prompts; the student ships when its routing, citations and refusals pass every
/// gate. Exit code 0: it ships; 3: a gate failed, or a figure fell behind the baseline; 1: there is no verdict.
/// It may be interrupted at any time: the same command continues and ends with the same report.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The teacher: model directory, GGUF file, or name in the local Hugging Face cache
    #[arg(long, value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    pub(super) teacher: String,
    /// The student, named in the same way
    #[arg(long, value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    pub(super) student: String,
    /// The prompts, one JSON object per line
    #[arg(long, value_name = "FILE", value_parser = path_not_stream(SUITE_FILE))]
    pub(super) suite: PathBuf,
    /// The chunks of text that the prompts quote, one JSON object per line
    #[arg(long, value_name = "FILE", value_parser = path_not_stream(SUITE_FILE))]
    pub(super) corpus: PathBuf,
    /// Folder that keeps the recordings of the teacher, to be used again
    #[arg(long, value_name = "DIR", default_value = "eval/artifacts", value_parser = path_not_stream(FOLDER))]
    pub(super) artifacts: PathBuf,
    /// Folder of the report (default: eval/reports/STUDENT_SUITE)
    #[arg(long, value_name = "DIR", conflicts_with = "shard", value_parser = path_not_stream(FOLDER))]
    pub(super) report: Option<PathBuf>,
    /// Take this share of the evidence away and measure how far the figures move, for example 0.1
    #[arg(long, value_name = "SHARE", conflicts_with = "shard", value_parser = fraction)]
    pub(super) perturb: Option<f64>,
    /// Which chunks of evidence are taken away
    #[arg(long, value_enum, value_name = "MODE", default_value = "random", requires = "perturb")]
    pub(super) perturb_mode: Mode,
    /// Seed of the random choice of chunks
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole::<u64>(0..=u64::MAX), requires = "perturb")]
    pub(super) perturb_seed: u64,
    /// Demand that the lower end of each figure's 95 % interval passes
    #[arg(long)]
    pub(super) strict: bool,
    /// Replace the threshold of a gate, for example must_answer=0.99
    #[arg(long = "threshold", value_name = "GATE=VALUE", value_parser = threshold)]
    pub(super) thresholds: Vec<(BehavioralGate, f64)>,
    /// Smallest number of prompts that a figure may rest on
    #[arg(long, value_name = "N", default_value_t = GateThresholds::default().min_samples, value_parser = whole::<u64>(1..=u64::MAX))]
    pub(super) min_prompts: u64,
    /// Change when evidence makes a label (disagreement above 0.4: contested, redundancy above 3: resolved, fragility
    /// above 0.7: indeterminate), for example redundancy=2; matters where the suite has no labels, and with --perturb
    #[arg(long = "label-threshold", value_name = "SIGNAL=VALUE", value_parser = label_threshold)]
    pub(super) label_thresholds: Vec<(String, f64)>,
    /// File of phrases that make an answer a refusal, in place of the built-in ones: one phrase, or tag in angle brackets,
    /// per line
    #[arg(long, value_name = "FILE")]
    pub(super) refusal_signals: Option<PathBuf>,
    /// An earlier report.json: fail where a figure fell behind it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["filter_failing", "shard"])]
    pub(super) baseline: Option<PathBuf>,
    /// Run only the prompts that failed in the last report; the result is no verdict
    #[arg(long, conflicts_with_all = ["perturb", "stamp", "shard"])]
    pub(super) filter_failing: bool,
    /// Write the result into the metadata of the student, which stays the same model
    #[arg(long, conflicts_with_all = ["adapters", "shard"])]
    pub(super) stamp: bool,
    /// Do not record the inputs of the teacher's routers, the largest part of a recording; local routing is then not
    /// measured
    #[arg(long)]
    pub(super) no_router_inputs: bool,
    /// Record the teacher layer by layer, each read once for a group of prompts and token: for a checkpoint larger than memory.
    /// The recording is the same
    #[arg(long)]
    pub(super) stream_teacher: bool,
    /// Limit on the resident memory of a streamed teacher, mapped pages included: it decides how many prompts a group has
    #[arg(long, value_name = "SIZE", requires = "stream_teacher", value_parser = args::size)]
    pub(super) teacher_memory: Option<u64>,
    /// Largest number of tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = whole::<u16>(1..=65_535))]
    pub(super) max_new_tokens: u16,
    /// Type of the activations of the student's ternary, Q8_0 and Q6_K layers
    #[arg(long, value_enum, default_value = "f32")]
    pub(super) act: Act,
    /// Type of the numbers in the student's key/value cache
    #[arg(long, value_enum, default_value = "f32")]
    pub(super) kv: Kv,
    #[command(flatten)]
    pub(super) adapters: AdapterArgs,
    #[command(flatten)]
    pub(super) repair: RepairArgs,
    /// Keep what the verdict teaches about the student in this store, which `bitnet lessons` shows
    #[arg(long, value_name = "FILE", value_parser = path_not_stream(STORE), conflicts_with_all = ["filter_failing", "shard"])]
    pub(super) lessons: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long, conflicts_with = "shard")]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) shard: ShardArgs,
    /// Replace an existing part
    #[arg(long, requires = "shard")]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) zero: AllowZero,
    #[command(flatten)]
    pub(super) threads: Threads,
}

/// The repair of a student that fails.
#[derive(clap::Args)]
pub(super) struct RepairArgs {
    /// Where a gate fails, write a repaired student to this GGUF, which is replaced if it exists, and judge it; the
    /// student itself stays as it is
    #[arg(long, value_name = "FILE", requires = "calibration", conflicts_with_all = ["filter_failing", "stamp", "adapters", "shard"], value_parser = path_not_stream(MODEL_OUT))]
    pub(super) repair: Option<PathBuf>,
    /// A text to repair on: plain, or one JSON object with `messages` per line
    #[arg(long, value_name = "FILE", requires = "repair", value_parser = NonEmptyStringValueParser::new())]
    pub(super) calibration: Vec<String>,
    /// Tokens that a repair of citations or refusals trains on
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = whole::<usize>(1..=u64::MAX), requires = "repair")]
    pub(super) repair_tokens: usize,
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

fn label_threshold(text: &str) -> Result<(String, f64), String> {
    let (signal, value) = assignment(text, "SIGNAL=VALUE")?;
    behavior_eval::labels::LabelThresholds::default().set(signal, value).map_err(|error| error.to_string())?;
    Ok((signal.to_owned(), value))
}

fn threshold(text: &str) -> Result<(BehavioralGate, f64), String> {
    let (gate, value) = assignment(text, "GATE=VALUE")?;
    let gate: BehavioralGate = gate.parse().map_err(|error: GateError| error.to_string())?;
    GateThresholds::default().set(gate, value).map_err(|error| error.to_string())?;
    Ok((gate, value))
}

/// Parses a name and a number, with `=` between them.
fn assignment<'a>(text: &'a str, form: &str) -> Result<(&'a str, f64), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`; write {form}"))?;
    Ok((name, value.parse().map_err(|_| format!("`{value}` is not a number; write a number, for example 0.9"))?))
}
