//! `bitnet run`: text in, text out.
//!
//! The answer streams to standard output, everything else goes to standard error.

use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use anyhow::{Result, bail};
use clap::ValueEnum;
use gguf_bitnet::peak_rss_bytes;

use moe_runtime::{
    ChatRequest, ChatTemplate, ControlTokens, GenerateOptions, Generation, MemoryPlan, ModelFiles, Sampler,
    SamplerConfig, Session, StopReason, TextStream, Tokenizer, generate,
};
use serde_json::{Value, json};

use crate::engine::EngineArgs;
use crate::{model, output, size};

/// Context when nothing else is asked for.
const DEFAULT_CONTEXT: usize = 4096;

/// Answer a prompt; without one, chat on the terminal.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model directory, GGUF file, or name in the local Hugging Face cache
    #[arg(required_unless_present = "model_flag", value_name = "MODEL")]
    model: Option<String>,
    /// The same as MODEL
    #[arg(short, long = "model", conflicts_with = "model", value_name = "MODEL", id = "model_flag")]
    model_flag: Option<String>,
    /// The prompt; without it standard input is the prompt, and a terminal is a chat
    #[arg(short, long)]
    prompt: Option<String>,
    /// Most tokens of an answer
    #[arg(short = 'n', long, default_value_t = 512, value_name = "N")]
    max_tokens: usize,
    /// Context length in tokens (default: 4096, or less where the model was made for less)
    #[arg(short, long, value_name = "N")]
    context: Option<NonZeroUsize>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Continue the text of the prompt instead of answering it
    #[arg(long, conflicts_with_all = ["system", "think"])]
    raw: bool,
    /// System message
    #[arg(long)]
    system: Option<String>,
    /// Whether the model thinks before it answers (default: what its template does)
    #[arg(long, value_enum)]
    think: Option<Switch>,
    /// Memory that may be used, for example 8GB: prints the sum, refuses what does not fit
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    memory: Option<u64>,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// How tokens are chosen; what is not given comes from the model's own recommendation.
#[derive(clap::Args)]
struct SamplingArgs {
    /// Temperature; 0 always takes the most likely token
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temp: Option<f32>,
    /// Keep the most likely tokens that hold this share of the probability
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Drop tokens less likely than this share of the most likely one
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Keep this many tokens; 0 keeps all
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// The same seed gives the same answer
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl SamplingArgs {
    fn config(&self, files: &ModelFiles) -> Result<SamplerConfig> {
        let base = files.sampling()?;
        let config = SamplerConfig {
            temperature: self.temp.unwrap_or(base.temperature),
            top_p: self.top_p.unwrap_or(base.top_p),
            min_p: self.min_p.unwrap_or(base.min_p),
            top_k: self.top_k.unwrap_or(base.top_k),
            seed: self.seed,
        };
        config.check()?;
        Ok(config)
    }
}

/// Runs the verb.
pub(crate) fn execute(args: Args) -> Result<()> {
    let spec = args.model.as_deref().or(args.model_flag.as_deref()).unwrap_or_default();
    let files = model::open(spec)?;
    let tokenizer = files.tokenizer()?;
    if tokenizer.is_byte_fallback() {
        output::note("warning: the model has no vocabulary; bytes are its tokens");
    }
    let n_ctx = args.context.map_or_else(|| DEFAULT_CONTEXT.min(files.config.n_ctx), NonZeroUsize::get);
    let plan = args.engine.plan(&files, n_ctx, Session::DEFAULT_CHUNK)?;
    check_memory(args.memory, &plan, n_ctx)?;
    let sampler = Sampler::new(args.sampling.config(&files)?)?;
    let template = match (args.raw, tokenizer.chat_template()) {
        (true, _) => None,
        (false, Some(source)) => Some(model::chat_template(source, &tokenizer)?),
        (false, None) if args.system.is_some() || args.think.is_some() => {
            bail!("the model has no chat template, so --system and --think have no place in its prompt")
        }
        (false, None) => {
            output::note("note: the model has no chat template; the prompt is continued as it stands");
            None
        }
    };
    let chat = args.prompt.is_none() && std::io::stdin().is_terminal();
    if chat && template.is_none() {
        bail!("a chat needs a chat template; give a prompt with -p to continue it");
    }
    let prompt = match &args.prompt {
        Some(prompt) => Some(prompt.clone()),
        None if chat => None,
        None => Some(model::read_text("-")?),
    };
    let model = args.engine.load(&files, args.engine.pool()?, &plan, args.memory)?;
    let session = args.engine.session(model, n_ctx)?;
    let options = GenerateOptions {
        max_tokens: args.max_tokens,
        stop: tokenizer.stop_ids().to_vec(),
        ..GenerateOptions::default()
    };
    let mut talk = Talk { session, held: Vec::new(), tokenizer, sampler, options };
    let answered = match (template, prompt) {
        (Some(template), Some(prompt)) => {
            let request = request(&args, first_messages(&args, &prompt));
            let rendered = template.render(&request)?;
            talk.answer_text(&rendered).map(drop)
        }
        (None, Some(prompt)) => {
            let mut tokens = talk.tokenizer.raw_prefix();
            let text = talk.tokenizer.encode(&prompt, true)?;
            if text.starts_with(&tokens) {
                tokens.clear();
            }
            tokens.extend(text);
            talk.answer(&tokens, false).map(drop)
        }
        (Some(template), None) => converse(&args, &template, &mut talk),
        (None, None) => Ok(()),
    };
    answered.map_err(|error| match error.downcast_ref() {
        Some(moe_runtime::Error::Logit { .. }) => model::blame(&files).unwrap_or(error),
        _ => error,
    })
}

/// Prints what the model will need, and refuses what does not fit.
fn check_memory(allowed: Option<u64>, plan: &MemoryPlan, n_ctx: usize) -> Result<()> {
    let Some(allowed) = allowed else { return Ok(()) };
    output::note(format_args!(
        "memory: weights {} + cache for {n_ctx} tokens {} + buffers {} = {}",
        size::show(plan.mapped_weights_bytes + plan.converted_weights_bytes),
        size::show(plan.cache_bytes),
        size::show(plan.scratch_bytes),
        size::show(plan.total_bytes())
    ));
    Ok(plan.check(allowed)?)
}

fn first_messages(args: &Args, prompt: &str) -> Vec<Value> {
    ChatRequest::user(args.system.as_deref(), prompt).messages
}

fn request(args: &Args, messages: Vec<Value>) -> ChatRequest {
    let enable_thinking = args.think.map(|think| think == Switch::On);
    ChatRequest { messages, enable_thinking, add_generation_prompt: true, ..ChatRequest::default() }
}

/// Turns on a terminal until the input ends.
fn converse(args: &Args, template: &ChatTemplate, talk: &mut Talk) -> Result<()> {
    output::note("chat: an empty line or end of input leaves");
    let mut messages: Vec<Value> = Vec::new();
    loop {
        let _ = write!(std::io::stderr(), "> ");
        let mut line = String::new();
        if std::io::stdin().read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok(());
        }
        let turn = match messages.is_empty() {
            true => first_messages(args, line.trim()),
            false => vec![json!({ "role": "user", "content": line.trim() })],
        };
        messages.extend(turn);
        let rendered = template.render(&request(args, messages.clone()))?;
        let answer = talk.answer_text(&rendered)?;
        let (reasoning, content) = parts(&answer, rendered.ends_with("<think>"));
        messages.push(json!({ "role": "assistant", "content": content, "reasoning_content": reasoning }));
    }
}

/// Reasoning and content of an answer: only an answer that began inside a think block reasons, up to its first end.
fn parts(answer: &str, thinks: bool) -> (&str, &str) {
    if !thinks {
        return ("", answer);
    }
    let answer = answer.strip_prefix("<think>").unwrap_or(answer);
    answer.split_once("</think>").unwrap_or((answer, ""))
}

/// A session with what it takes to answer.
struct Talk {
    session: Session,
    /// The tokens the session holds.
    held: Vec<u32>,
    tokenizer: Tokenizer,
    sampler: Sampler,
    options: GenerateOptions,
}

impl Talk {
    /// Answers a rendered prompt.
    fn answer_text(&mut self, rendered: &str) -> Result<String> {
        let tokens = self.tokenizer.encode_prompt(rendered)?;
        self.answer(&tokens, rendered.ends_with("<think>"))
    }

    /// Streams the answer to `prompt` and returns it. What the session holds of the prompt already is not run again.
    fn answer(&mut self, prompt: &[u32], thinks: bool) -> Result<String> {
        let common =
            self.held.iter().zip(prompt).take_while(|(a, b)| a == b).count().min(prompt.len().saturating_sub(1));
        self.session.truncate(common);
        self.held.truncate(common);
        let mut stream = TextStream::new(if thinks { ControlTokens::Markup } else { ControlTokens::Hide });
        let mut answer = String::new();
        let mut broken = None;
        let tokenizer = &self.tokenizer;
        let mut show = |piece: &str| {
            answer.push_str(piece);
            let mut out = std::io::stdout().lock();
            match out.write_all(piece.as_bytes()).and_then(|()| out.flush()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    broken = Some(error);
                    ControlFlow::Break(())
                }
            }
        };
        if thinks && show("<think>").is_break() {
            return Ok(answer);
        }
        let mut on_token = |token| match stream.push(tokenizer, token) {
            piece if piece.is_empty() => ControlFlow::Continue(()),
            piece => show(&piece),
        };
        let options = &self.options;
        let generation =
            generate(&mut self.session, &prompt[common..], options, &mut self.sampler, &mut (), &mut on_token)?;
        let _ = show(&format!("{}\n", stream.finish()));
        self.held.extend_from_slice(&prompt[common..]);
        self.held.extend_from_slice(&generation.tokens);
        self.held.truncate(self.session.len());
        if let Some(error) = broken {
            return Err(output::not_written(error));
        }
        note_statistics(&generation);
        answer.truncate(answer.trim_end_matches('\n').len());
        Ok(answer)
    }
}

fn note_statistics(generation: &Generation) {
    let s = &generation.statistics;
    let why = match generation.reason {
        StopReason::Loop(found) => format!("loop ({found:?})"),
        reason => reason.name().to_owned(),
    };
    let peak = peak_rss_bytes().map_or_else(String::new, |bytes| format!(", peak memory {}", size::show(bytes)));
    output::note(format_args!(
        "prompt {} tokens at {:.1}/s, answer {} tokens at {:.1}/s, ended by {why}{peak}",
        s.prompt_tokens,
        s.prefill_tokens_per_s(),
        s.generated_tokens,
        s.decode_tokens_per_s(),
    ));
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn only_what_began_as_a_thought_is_reasoning() {
        assert_eq!(parts("<think>a</think>b</think>", true), ("a", "b</think>"));
        assert_eq!(parts("<think>never ends", true), ("never ends", ""));
        assert_eq!(parts("1 </think> 2", false), ("", "1 </think> 2"));
    }
}
