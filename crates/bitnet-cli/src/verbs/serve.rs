//! `bitnet serve`: answers requests over HTTP.

mod encoder;
mod facts;
mod memory;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use moe_runtime::adapters::AdapterSet;
use moe_runtime::{
    ChatTemplate, GrammarCompiler, MemoryPlan, ModelFiles, OutputFormat, PromptCache, PromptCacheOptions, PromptKey,
    QueueLimits, SamplerConfig, Scheduler, SchedulerOptions, Session, Tokenizer,
};

use self::encoder::{EncoderArgs, Loaded};
use self::facts::facts;
use self::memory::{Asked, Sizes};
use crate::args::{self, DraftArgs, EngineArgs, ModelArg, PromptCacheArgs, SamplingArgs, whole};
use crate::http::{self, Settings};
use crate::load::{self, Engine};

const FORM: &str = "--json and --think-budget are about one answer: requests to a server have `response_format` and \
                    `reasoning_effort`";

/// Most bytes of a file of keys.
const MAX_KEYS_BYTES: u64 = 1 << 20;

/// Answer requests over HTTP, in the APIs of OpenAI and Anthropic.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 takes a free one and prints it
    #[arg(long, default_value = "8080", value_parser = whole::<u16>(0..=65535))]
    port: u16,
    /// A further name under which clients may reach the server
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// A key that clients have to send; several may be given
    #[arg(long, value_name = "KEY")]
    api_key: Vec<String>,
    /// A file of keys, one per line
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Name of the model in answers (default: the name of its file)
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,
    /// Requests that are computed at the same time (default: 2 on up to four cores, else 4)
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..=64))]
    slots: Option<usize>,
    /// Requests that wait for a slot; more are refused
    #[arg(long, value_name = "N", default_value = "64", value_parser = whole::<usize>(0..=100_000))]
    queue: usize,
    /// Requests of one key that are computed at the same time
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..=100_000))]
    key_running: Option<usize>,
    /// Requests of one key that wait
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..=100_000))]
    key_waiting: Option<usize>,
    /// Tokens per minute that are computed for one key
    #[arg(long, value_name = "N", value_parser = whole::<u64>(1..=u64::MAX))]
    key_tokens: Option<u64>,
    /// Context of each slot in tokens (default: 8192, or less where the model was made for less)
    #[arg(short, long, value_name = "N", value_parser = whole::<usize>(1..=u64::MAX))]
    context: Option<usize>,
    /// Largest number of tokens of an answer; -1 is no limit but the end of the context
    #[arg(short = 'n', long, default_value = "-1", value_name = "N", value_parser = args::tokens)]
    max_tokens: usize,
    /// The share of a step's time that belongs to running answers while a prompt is read
    #[arg(long, value_name = "SHARE", default_value = "0.5", value_parser = args::fraction)]
    decode_share: f64,
    /// Largest body of a request
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = args::size)]
    max_body: u64,
    /// Longest time of a request in seconds
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = whole::<u64>(1..=1_000_000))]
    request_time: u64,
    /// Seconds that running requests get after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = whole::<u64>(0..=1_000_000))]
    drain_time: u64,
    /// Give metrics under vLLM's names too, for dashboards and gateways
    #[arg(long)]
    metrics_vllm: bool,
    /// Serve /slots and /props too, which tell how busy the server is and how it answers
    #[arg(long)]
    debug_endpoints: bool,
    /// Where the thoughts of chats stand: in a field of their own, or in the content between <think> and </think>
    #[arg(long, value_enum, value_name = "PLACE", default_value_t = ReasoningFormat::Field)]
    reasoning_format: ReasoningFormat,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Limit on the memory, for example 8GB: the need is printed, and what exceeds the limit is refused
    #[arg(long, value_name = "SIZE", value_parser = args::size)]
    memory: Option<u64>,
    /// Most bytes of the computed beginnings of prompts in memory (default: 512 MiB, or less where --memory demands it)
    #[arg(long, value_name = "SIZE", value_parser = args::size)]
    prompt_cache_ram: Option<u64>,
    #[command(flatten)]
    encoder: EncoderArgs,
    #[command(flatten)]
    drafts: DraftArgs,
    #[command(flatten)]
    prompts: PromptCacheArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// The place of thoughts in chats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ReasoningFormat {
    /// `reasoning_content`, a field beside `content`
    Field,
    /// `content`, for clients that drop other fields
    Content,
}

/// The model before any weight is read.
struct Opened {
    files: ModelFiles,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    sampling: SamplerConfig,
    engine: Engine,
    adapters: Option<Arc<AdapterSet>>,
    encoder: Option<Loaded>,
    plan: MemoryPlan,
    sizes: Sizes,
    options: SchedulerOptions,
}

pub(crate) fn execute(args: Args) -> Result<()> {
    let settings = settings(&args)?;
    let opened = open(&args)?;
    http::serve(settings, Box::new(move || start(&args, opened)))
}

fn settings(args: &Args) -> Result<Settings> {
    let mut keys: Vec<String> = args.api_key.clone();
    if let Some(file) = &args.api_key_file {
        let text = load::read_at_most(file, MAX_KEYS_BYTES)?;
        keys.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
        if keys.is_empty() {
            bail!("{}: the file has no key; write one per line", file.display());
        }
    }
    Ok(Settings {
        host: args.host.clone(),
        port: args.port,
        allowed_hosts: args.allow_host.clone(),
        keys: keys.iter().map(|key| blake3::hash(key.as_bytes())).collect(),
        max_body_bytes: usize::try_from(args.max_body)?,
        max_tokens: args.max_tokens,
        request_time: Duration::from_secs(args.request_time),
        drain_time: Duration::from_secs(args.drain_time),
        vllm_names: args.metrics_vllm,
        debug_endpoints: args.debug_endpoints,
        thoughts_in_content: args.reasoning_format == ReasoningFormat::Content,
    })
}

/// Opens the model and checks all that can be checked without its weights.
fn open(args: &Args) -> Result<Opened> {
    let engine = args.engine.engine(args.memory)?;
    let files = args.drafts.complete(args.engine.open(&args.model.model)?)?;
    let tokenizer = files.tokenizer()?;
    load::note_guesses(&files.guesses(Some(&tokenizer)));
    let template = ChatTemplate::of_model(&tokenizer)?;
    let sampling = args.sampling.of_requests(&files, FORM)?;
    let adapters = args.engine.adapters.load(&files)?;
    let encoder = args.encoder.load(&facts::id(&files, args.alias.as_deref()), engine.pool.clone())?;
    let encoder_bytes = encoder.as_ref().map_or(0, Loaded::memory_bytes);
    let asked = Asked { slots: args.slots, context: args.context, cache_bytes: args.prompt_cache_ram };
    let plan = |sizes: &Sizes| -> Result<MemoryPlan> {
        let plan = engine.plan(&files, sizes.context, Session::DEFAULT_CHUNK)?;
        Ok(plan.with_sequences(&files.config, sizes.slots).with_adapters(adapters.as_ref()))
    };
    let mut sizes = Sizes::wanted(asked, cores(), files.config.n_ctx);
    if let Some(allowed) = args.memory {
        sizes = sizes.within(allowed, asked, |sizes| Ok(sizes.total_bytes(&plan(sizes)?, encoder_bytes)))?;
    }
    let plan = plan(&sizes)?;
    sizes.note(&plan, encoder_bytes);
    let limits = QueueLimits {
        waiting: args.queue,
        account_waiting: args.key_waiting.unwrap_or(usize::MAX),
        account_running: args.key_running.unwrap_or(usize::MAX),
        account_tokens_per_minute: args.key_tokens,
    };
    let options = SchedulerOptions {
        slots: sizes.slots,
        n_ctx: sizes.context,
        cache_type: engine.kv,
        chunk: Session::DEFAULT_CHUNK,
        prompt_rows: 64,
        decode_share: args.decode_share,
        limits,
    };
    Ok(Opened { files, tokenizer, template, sampling, engine, adapters, encoder, plan, sizes, options })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn start(args: &Args, opened: Opened) -> Result<(http::Engine, Scheduler)> {
    let Opened { files, tokenizer, template, sampling, mut engine, adapters, encoder, plan, sizes, options } = opened;
    let encoder_bytes = encoder.as_ref().map_or(0, Loaded::memory_bytes);
    let facts = facts(&files, args.alias.as_deref(), options.n_ctx)?;
    // Packed weights fill what the rest leaves.
    engine.memory = engine.memory.map(|memory| memory.saturating_sub(sizes.cache_bytes + encoder_bytes));
    let model = engine.load(&files, &plan)?;
    let scheduler = Scheduler::new(model.clone(), options)?;
    let cache = PromptCache::open(&PromptCacheOptions { memory_bytes: sizes.cache_bytes, disk: args.prompts.disk() })?;
    let key = PromptKey::new(&facts.identity, &model, scheduler.cache_layout(), adapters.as_deref());
    let scheduler = scheduler.with_prompt_cache(Some((cache, key))).with_adapters(adapters);
    let format = OutputFormat::of_model(&tokenizer);
    let grammars = GrammarCompiler::of_model(&tokenizer);
    let drafts = args.drafts.source(&files, (&engine, &model), options.n_ctx);
    let queue = scheduler.queue().clone();
    let started = Instant::now();
    let (seal, slots) = (http::Seal::new(&facts.identity), options.slots);
    let planned_bytes = sizes.total_bytes(&plan, encoder_bytes);
    let encoder = encoder.map(|encoder| encoder.with_queue(options.limits));
    let engine = http::Engine {
        tokenizer,
        template,
        format,
        grammars,
        sampling,
        facts,
        seal,
        drafts,
        queue,
        encoder,
        slots,
        started,
        planned_bytes,
    };
    Ok((engine, scheduler))
}
