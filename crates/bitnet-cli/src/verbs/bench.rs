//! `bitnet bench`: the speed of a model, beside the speed that the memory of the machine allows.
//!
//! Prompt processing (`pp`) and decoding (`tg`) are timed apart, at each depth of context, over random tokens, as
//! llama-bench does. Decoding is timed for any number of sequences in one step, in alternating rounds. A decoding speed is printed with the bytes a token must read and with the share of the read
//! bandwidth that the same run measured, before and after.

use std::time::Instant;

use anyhow::{Result, bail};
use comfy_table::{Table, presets};
use gguf_bitnet::peak_rss_bytes;
use moe_runtime::adapters::AdapterSlot;
use moe_runtime::forward::FeedForward;
use moe_runtime::{CraftsmanModel, Interrupt, Logits, Session, SplitMix64, Step, StepSegment};
use serde::Serialize;
use tl_kernels::{Isa, bandwidth};

use crate::args::{EngineArgs, ModelArg, whole};
use crate::exit::UsageError;
use crate::output::{self, Progress, size};

/// Tokens of the warm-up run. At four of 64 experts per token, they use nearly every expert of each layer.
const WARM_UP_TOKENS: usize = 128;

/// Measure the speed of a model.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// Tokens of the prompt, for example 64,512; 0 skips the test
    #[arg(short = 'p', long, value_delimiter = ',', default_value = "512", value_name = "N,..", value_parser = whole::<usize>(0..=u64::MAX))]
    prompt: Vec<usize>,
    /// Tokens decoded; 0 skips the test
    #[arg(short = 'n', long, value_delimiter = ',', default_value = "32", value_name = "N,..", value_parser = whole::<usize>(0..=u64::MAX))]
    decode: Vec<usize>,
    /// Tokens of context before each test, for example 0,1024,4096
    #[arg(short = 'd', long, value_delimiter = ',', default_value = "0", value_name = "N,..", value_parser = whole::<usize>(0..=u64::MAX))]
    depth: Vec<usize>,
    /// Sequences that decode in one step, for example 1,2,4,8
    #[arg(short = 's', long, value_delimiter = ',', default_value = "1", value_name = "N,..", value_parser = whole::<usize>(1..=1024))]
    sequences: Vec<usize>,
    /// Repetitions of each test
    #[arg(short, long, default_value_t = 3, value_name = "N", value_parser = whole::<u16>(1..=1000))]
    repetitions: u16,
    /// Tokens of a prompt that are computed at once (default: as many as `run` computes)
    #[arg(long, value_name = "N", value_parser = whole::<u16>(1..=65_535))]
    chunk: Option<u16>,
    /// Print all figures as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// The result of a benchmark.
#[derive(Serialize)]
struct Report {
    model: String,
    weights_bytes: u64,
    isa: &'static str,
    /// The kernel of the feed-forward matrices of the last layer.
    kernel: &'static str,
    threads: usize,
    /// The better of two measurements, before and after the tests.
    read_bandwidth_bytes_per_s: f64,
    tests: Vec<Test>,
    peak_rss_bytes: Option<u64>,
}

/// One line of the table.
#[derive(Serialize)]
struct Test {
    /// The name that llama-bench uses: `pp512`, `tg32`; `tg32 x4` for four sequences in one step.
    test: String,
    depth: usize,
    /// Tokens that each of the sequences gets.
    tokens: usize,
    sequences: usize,
    repetitions: u16,
    /// The mean of all repetitions, over all sequences together.
    tokens_per_s: f64,
    tokens_per_s_median: f64,
    /// Between repetitions; absent for a single one.
    tokens_per_s_deviation: Option<f64>,
    /// Bytes that a decoded token reads: weights, and the cache at half of the test.
    bytes_per_token: Option<u64>,
    bytes_per_s: Option<f64>,
    read_bandwidth_share: Option<f64>,
}

pub(crate) fn execute(args: Args) -> Result<()> {
    let mut depths = args.depth.clone();
    depths.sort_unstable();
    depths.dedup();
    let deepest = depths.last().copied().unwrap_or(0);
    let longest = args.prompt.iter().chain(&args.decode).copied().max().unwrap_or(0);
    if longest == 0 {
        return Err(UsageError::new("there is nothing to measure: give a number of tokens with -p or -n").into());
    }
    let engine = args.engine.engine(None)?;
    let files = args.engine.open(&args.model.model)?;
    let n_ctx = deepest.saturating_add(longest);
    if n_ctx > files.config.n_ctx {
        let allowed = files.config.n_ctx;
        bail!("depth and test need a context of {n_ctx} tokens, and the model was made for {allowed}: lower -d or -p");
    }
    let chunk = args.chunk.map_or(Session::DEFAULT_CHUNK, usize::from);
    let adapters = args.engine.adapters.load(&files)?;
    let most = args.sequences.iter().copied().max().unwrap_or(1);
    let plan = engine.plan(&files, n_ctx, chunk)?.with_sequences(&files.config, most).with_adapters(adapters.as_ref());
    let bandwidth = || bandwidth::read_bytes_per_s(&engine.pool, bandwidth::BUFFER_BYTES);
    let before = bandwidth()?;
    let model = engine.load(&files, &plan)?;
    let kernel = feed_forward_kernel(&model);
    let mut step = Step::new(model.clone());
    step.set_adapters(adapters.clone());
    let session = engine.session(model, n_ctx)?.with_chunk(chunk).with_adapters(AdapterSlot::new(adapters));
    let weights = files.weight_bytes_per_token();
    let mut bench = Bench { args: &args, session, step, weights, rng: SplitMix64::new(0), tests: Vec::new() };
    bench.run(&depths)?;
    // Read before the second measurement of the bandwidth, whose buffer would count as memory of the model.
    let peak_rss_bytes = peak_rss_bytes();
    let report = Report {
        model: args.model.model.clone(),
        weights_bytes: files.report().bytes,
        isa: Isa::current().name(),
        kernel,
        threads: engine.pool.threads(),
        read_bandwidth_bytes_per_s: before.max(bandwidth()?),
        tests: bench.tests,
        peak_rss_bytes,
    };
    let report = report.with_shares();
    if args.json { output::json(&report) } else { output::line(report.text()) }
}

/// The kernel of the feed-forward matrices of the last layer, which is packed last.
fn feed_forward_kernel(model: &CraftsmanModel) -> &'static str {
    let network = model.layers().last().and_then(|layer| match layer.ffn() {
        FeedForward::Dense(network) => Some(network),
        FeedForward::Moe { experts, .. } => experts.routed().first(),
    });
    network.map_or("no", |network| network.gate().kernel().name())
}

/// The two ways to move tokens through a model.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// All tokens of a prompt in batches.
    Prompt,
    /// One token after the other.
    Decode,
}

impl Phase {
    /// The names of llama-bench: prompt processing, text generation.
    fn prefix(self) -> &'static str {
        match self {
            Phase::Prompt => "pp",
            Phase::Decode => "tg",
        }
    }
}

struct Bench<'a> {
    args: &'a Args,
    session: Session,
    /// Decodes several sequences, which begin as the session.
    step: Step,
    weights: u64,
    rng: SplitMix64,
    tests: Vec<Test>,
}

impl Bench<'_> {
    /// Fills the context to each depth in turn, so that the tokens below the deepest are computed once.
    fn run(&mut self, depths: &[usize]) -> Result<()> {
        let tests = |list: &[usize]| list.iter().filter(|&&n| n > 0).count();
        let tests = tests(&self.args.prompt) + tests(&self.args.decode) * self.args.sequences.len();
        let steps = depths.len() * tests * usize::from(self.args.repetitions);
        let progress = Progress::items("measuring");
        progress.show(0, steps as u64);
        self.warm_up()?;
        for &depth in depths {
            let missing = self.tokens(depth - self.session.len());
            if !missing.is_empty() {
                self.session.prefill(&missing, &mut ())?;
            }
            for &n in self.args.prompt.iter().filter(|&&n| n > 0) {
                self.measure(&progress, Phase::Prompt, depth, n, &[1])?;
            }
            for &n in self.args.decode.iter().filter(|&&n| n > 0) {
                self.measure(&progress, Phase::Decode, depth, n, &self.args.sequences)?;
            }
        }
        Ok(())
    }

    /// Brings weights into memory and buffers to their size, so that this cost is no part of a measured speed.
    fn warm_up(&mut self) -> Result<()> {
        let tokens = self.tokens(self.session.n_ctx().min(WARM_UP_TOKENS));
        self.session.step(&tokens, &mut ())?;
        self.session.reset();
        Ok(())
    }

    /// Times `n` tokens of each number of sequences, in rounds that alternate between the numbers.
    fn measure(
        &mut self,
        progress: &Progress,
        phase: Phase,
        depth: usize,
        n: usize,
        sequences: &[usize],
    ) -> Result<()> {
        let mut speeds = vec![Vec::new(); sequences.len()];
        for _ in 0..self.args.repetitions {
            for (&sequences, speeds) in sequences.iter().zip(&mut speeds) {
                let seconds = match (phase, sequences) {
                    (Phase::Prompt, _) => self.prompt_seconds(n)?,
                    (Phase::Decode, 1) => self.decode_seconds(n)?,
                    (Phase::Decode, _) => self.steps_seconds(n, sequences)?,
                };
                speeds.push((n * sequences) as f64 / seconds);
                self.session.truncate(depth);
                progress.advance();
            }
        }
        for (&sequences, mut speeds) in sequences.iter().zip(speeds) {
            let mean = speeds.iter().sum::<f64>() / speeds.len() as f64;
            let deviation = deviation(&speeds, mean);
            speeds.sort_by(f64::total_cmp);
            let cache = self.session.cache().bytes_per_token() as u64;
            let is_single = phase == Phase::Decode && sequences == 1;
            let bytes_per_token = is_single.then(|| self.weights + cache * (depth + n / 2) as u64);
            let many = if sequences == 1 { String::new() } else { format!(" x{sequences}") };
            self.tests.push(Test {
                test: format!("{}{n}{many}", phase.prefix()),
                depth,
                tokens: n,
                sequences,
                repetitions: self.args.repetitions,
                tokens_per_s: mean,
                tokens_per_s_median: (speeds[(speeds.len() - 1) / 2] + speeds[speeds.len() / 2]) / 2.0,
                tokens_per_s_deviation: deviation,
                bytes_per_token,
                bytes_per_s: bytes_per_token.map(|bytes| bytes as f64 * mean),
                read_bandwidth_share: None,
            });
        }
        Ok(())
    }

    fn prompt_seconds(&mut self, n: usize) -> Result<f64> {
        let tokens = self.tokens(n);
        let start = Instant::now();
        self.session.step(&tokens, &mut ())?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn decode_seconds(&mut self, n: usize) -> Result<f64> {
        let tokens = self.tokens(n);
        let start = Instant::now();
        tokens.iter().try_for_each(|&token| self.session.step(&[token], &mut ()).map(drop))?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Decodes `n` tokens of each of `sequences` sequences, which share the context of the session and go on on their own.
    fn steps_seconds(&mut self, n: usize, sequences: usize) -> Result<f64> {
        let tokens = self.tokens(n * sequences);
        let forks = (0..sequences).map(|_| self.session.cache().fork());
        let mut caches = forks.collect::<Result<Vec<_>, _>>()?;
        let never = Interrupt::default();
        let start = Instant::now();
        for tokens in tokens.chunks_exact(sequences) {
            for (cache, token) in tokens.iter().enumerate() {
                let tokens = std::slice::from_ref(token);
                self.step.add(&caches, &StepSegment { cache, tokens, logits: Logits::Last, interrupt: &never })?;
            }
            self.step.run(&mut caches, &mut ())?;
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// Random tokens, so that the choice of experts is spread over all of them.
    fn tokens(&mut self, n: usize) -> Vec<u32> {
        let vocab = self.session.model().config().vocab as u64;
        (0..n).map(|_| u32::try_from(self.rng.next_u64() % vocab).unwrap_or(0)).collect()
    }
}

/// The sample standard deviation; `None` for a single value.
fn deviation(values: &[f64], mean: f64) -> Option<f64> {
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

impl Report {
    fn with_shares(mut self) -> Report {
        for test in &mut self.tests {
            test.read_bandwidth_share = test.bytes_per_s.map(|speed| speed / self.read_bandwidth_bytes_per_s);
        }
        self
    }

    fn text(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_header(["test", "depth", "tok/s", "per token", "GB/s", "of read bandwidth"]);
        for test in &self.tests {
            let speed = match test.tokens_per_s_deviation {
                Some(deviation) => format!("{:.2} ± {deviation:.2}", test.tokens_per_s),
                None => format!("{:.2}", test.tokens_per_s),
            };
            table.add_row([
                test.test.clone(),
                test.depth.to_string(),
                speed,
                test.bytes_per_token.map_or_else(String::new, size),
                test.bytes_per_s.map_or_else(String::new, |speed| format!("{:.1}", speed / 1e9)),
                test.read_bandwidth_share.map_or_else(String::new, |share| format!("{:.0} %", 100.0 * share)),
            ]);
        }
        let peak = self.peak_rss_bytes.map_or_else(String::new, |bytes| format!(", peak memory {}", size(bytes)));
        format!(
            "{} ({}), {} on {}, {} threads, reads {:.1} GB/s{peak}\n{table}",
            self.model,
            size(self.weights_bytes),
            self.kernel,
            self.isa,
            self.threads,
            self.read_bandwidth_bytes_per_s / 1e9
        )
    }
}
