//! `bitnet batch`: answers each line of a file, many at a time; as a whole or in shards.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use clap::builder::NonEmptyStringValueParser;
use gguf_bitnet::{Cut, UnitJob, UnitResult, output_path, write_atomic};
use moe_runtime::Session;
use moe_runtime::batch::{BatchAnswer, BatchLine, BatchOptions, BatchRunner};
use serde_json::{Value, json};

use crate::args::{self, EngineArgs, ModelArg, SamplingArgs, ShardArgs, path_not_stream, whole};
use crate::load;
use crate::output::{self, Progress};

/// The name of this job in manifests.
pub(super) const JOB: &str = "batch";
/// Lines of a unit: the work that a kill can cost.
const UNIT_LINES: usize = 16;

const OUT: &str = "an interrupted batch goes on in its file: write the name of a file, such as answers.jsonl";
const FORM: &str =
    "--json and --think-budget are about one answer, and the lines of a batch have none of the two: leave them out";

/// Answer each line of a file of prompts, many at a time.
///
/// Each line is a JSON object with `prompt` (a text to continue) or `messages` (a conversation to answer), and where wanted
/// `id`, `max_tokens`, `temperature`, `top_p`, `top_k`, `min_p`, `seed`, `stop`, the penalties, `tools` and
/// `chat_template_kwargs`. The answers are JSON lines in the order of the input. It may be interrupted at any time: the same
/// command continues and ends with the same bytes.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// The prompts, one JSON object per line; `-` is standard input
    #[arg(short, long, value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    input: String,
    /// The file of the answers
    #[arg(short, long, value_name = "FILE", required_unless_present = "shard", conflicts_with_all = ["shard", "part"], value_parser = path_not_stream(OUT))]
    out: Option<PathBuf>,
    #[command(flatten)]
    shard: ShardArgs,
    /// Largest number of tokens of an answer where its line does not say; -1 is no limit but the end of the context
    #[arg(short = 'n', long, default_value = "512", value_name = "N", value_parser = args::tokens)]
    max_tokens: usize,
    /// Context of each line in tokens (default: 4096, or less where the model was made for less)
    #[arg(short, long, value_name = "N", value_parser = whole::<usize>(1..=u64::MAX))]
    context: Option<usize>,
    /// Lines that are computed at the same time; the answers do not depend on it
    #[arg(long, value_name = "N", default_value = "8", value_parser = whole::<usize>(1..=UNIT_LINES as u64))]
    slots: usize,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Limit on the memory, for example 8GB: what exceeds it is refused
    #[arg(long, value_name = "SIZE", value_parser = args::size)]
    memory: Option<u64>,
    /// Replace an existing file
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

pub(crate) fn execute(args: Args) -> Result<()> {
    let (shard, part) = args.shard.given().unzip();
    let out = part.or(args.out.as_deref()).ok_or_else(|| anyhow!("give --out"))?;
    gguf_bitnet::Job::check(out, args.force)?;
    let text = load::read_text(&args.input)?;
    let lines: Vec<BatchLine<'_>> = lines(&text).collect();
    if lines.is_empty() {
        bail!("{}: there is no line in it; write one JSON object with `prompt` or `messages` per line", args.input);
    }
    let engine = args.engine.engine(args.memory)?;
    let files = args.engine.open(&args.model.model)?;
    let tokenizer = files.tokenizer()?;
    load::note_guesses(&files.guesses(Some(&tokenizer)));
    let sampling = args.sampling.of_requests(&files, FORM)?;
    let n_ctx = args.context.unwrap_or_else(|| files.config.default_context());
    let opened = args.engine.adapters.open()?;
    let adapters = args::sum_of_adapters(opened.as_ref(), &files)?;
    let plan = engine.plan(&files, n_ctx, Session::DEFAULT_CHUNK)?.with_sequences(&files.config, args.slots);
    let plan = plan.with_adapters(adapters.as_ref());
    args.memory.map_or(Ok(()), |allowed| plan.check(allowed))?;
    let manifest = json!({
        "job": JOB,
        "version": 1,
        "model": args::adapted_identity(opened.as_ref(), &files)?,
        "input": { "blake3": blake3::hash(text.as_bytes()).to_string(), "lines": lines.len() },
        "unit_lines": UNIT_LINES,
        "context": n_ctx,
        "max_tokens": (args.max_tokens != usize::MAX).then_some(args.max_tokens),
        "precision": args.engine.precision(),
        "sampling": {
            "temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p,
            "min_p": sampling.min_p, "repeat_penalty": sampling.repetition_penalty,
            "frequency_penalty": sampling.frequency_penalty, "presence_penalty": sampling.presence_penalty,
            "seed": sampling.seed,
        },
    });
    let cut = Cut { units: lines.len().div_ceil(UNIT_LINES), shard };
    let mut job = UnitJob::open(out, &manifest, cut, args.force)?;
    if job.next_unit().is_some() {
        let model = engine.load(&files, &plan)?;
        let (slots, cache_type, max_tokens) = (args.slots, engine.kv, args.max_tokens);
        let options = BatchOptions { slots, n_ctx, cache_type, sampling, max_tokens };
        let mut runner = BatchRunner::new(model, tokenizer, options)?.with_adapters(adapters);
        answer(&mut job, &mut runner, &lines)?;
    }
    let input = if args.input == "-" { "standard input" } else { &args.input };
    finish(job, out, (input, &manifest), shard.is_none())
}

/// The lines that are not blank, with their numbers in the file.
fn lines(text: &str) -> impl Iterator<Item = BatchLine<'_>> {
    let numbered = text.lines().zip(1..).map(|(text, number)| BatchLine { number, text });
    numbered.filter(|line| !line.text.trim().is_empty())
}

/// Does the units that are left.
fn answer(job: &mut UnitJob, runner: &mut BatchRunner, lines: &[BatchLine<'_>]) -> Result<()> {
    let progress = Progress::items("groups of 16 lines");
    let started = Instant::now();
    while let Some(unit) = job.next_unit() {
        let (done, all) = job.progress();
        progress.show(done as u64, all as u64);
        let group = lines.chunks(UNIT_LINES).nth(unit).unwrap_or_default();
        job.append(&result(group, &runner.run(group, &mut || started.elapsed()))?)?;
    }
    Ok(())
}

/// The answers of a group as lines.
fn result(group: &[BatchLine<'_>], answers: &[BatchAnswer]) -> Result<UnitResult> {
    let mut result = UnitResult::default();
    for (line, answer) in group.iter().zip(answers) {
        serde_json::to_writer(&mut result.bytes, &answer.line)?;
        result.bytes.push(b'\n');
        if let Some(error) = &answer.error {
            result.failed += 1;
            result.failure.get_or_insert_with(|| format!("line {}: {error}", line.number));
        }
    }
    Ok(result)
}

/// Puts the output in place, beside a whole one its manifest, and names the first line of `input` that has no answer.
///
/// # Errors
/// Lines without an answer; a disk that fails.
pub(super) fn finish(job: UnitJob, out: &Path, (input, manifest): (&str, &Value), is_whole: bool) -> Result<()> {
    let (failed, first) = job.failed();
    let first = first.unwrap_or_default().to_owned();
    let data = job.data_path();
    if is_whole && let Some(data) = data {
        let mut hasher = blake3::Hasher::new();
        hasher.update_mmap(&data).map_err(|error| anyhow!("cannot read {}: {error}", data.display()))?;
        let mut manifest = manifest.clone();
        manifest["output"] = json!({ "blake3": hasher.finalize().to_string(), "bytes": hasher.count() });
        manifest["failed_lines"] = failed.into();
        let path = output_path(&out.with_added_extension("manifest.json"))?;
        write_atomic(&path, format!("{manifest:#}\n").as_bytes())?;
    }
    job.finish()?;
    output::line(format_args!("wrote {}", out.display()))?;
    if failed > 0 {
        bail!(
            "{input}, {first}; {failed} of {} lines {} no answer: `error` in {} says why; mend them, and run them as a file \
             of their own",
            manifest["input"]["lines"],
            if failed == 1 { "has" } else { "have" },
            out.display()
        );
    }
    Ok(())
}
