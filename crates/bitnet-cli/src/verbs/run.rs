//! `bitnet run`: answers a prompt, or chats on a terminal.
//!
//! The answer streams to standard output, everything else goes to standard error.

mod answer;
mod chat;
mod commands;
mod docs;
mod history;
mod stream;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::ValueEnum;
use clap::builder::NonEmptyStringValueParser;
use moe_runtime::adapters::AdapterSlot;
use moe_runtime::{
    ChatTemplate, Conversation, ConversationOptions, CraftsmanBackend, GenerateOptions, MemoryPlan, Prompt, Session,
    SessionError, Tokenizer,
};

use self::answer::{answer, continue_text};
use self::docs::{Asked, DocsArgs};
use crate::args::{self, DraftArgs, EngineArgs, PromptCacheArgs, SamplingArgs, path_not_stream, whole};
use crate::exit::UsageError;
use crate::load;
use crate::output::{self, size};
use crate::terminal::Console;

const HISTORY: &str = "a history is read and written again: write the name of a file";

/// Answer a prompt; without one, chat on the terminal.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Model directory, GGUF file, or name in the local Hugging Face cache
    #[arg(required_unless_present = "model_flag", value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    model: Option<String>,
    /// The same as MODEL
    #[arg(short, long = "model", conflicts_with = "model", value_name = "MODEL", id = "model_flag", value_parser = NonEmptyStringValueParser::new())]
    model_flag: Option<String>,
    /// The prompt; without it, a terminal starts a chat, and other standard input is the prompt, as it is for `-`
    #[arg(short, long, allow_hyphen_values = true, conflicts_with = "file")]
    prompt: Option<String>,
    /// A file with the prompt; `-` is standard input
    #[arg(short, long, value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    file: Option<String>,
    /// Largest number of tokens of an answer; -1 is no limit but the end of the context
    #[arg(short = 'n', long, default_value = "512", value_name = "N", value_parser = args::tokens)]
    max_tokens: usize,
    /// Context length in tokens (default: 4096, or less where the model was made for less)
    #[arg(short, long, value_name = "N", value_parser = whole::<usize>(1..=u64::MAX))]
    context: Option<usize>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Continue the text of the prompt instead of answering it
    #[arg(long, conflicts_with_all = ["system", "system_file", "think"])]
    raw: bool,
    /// With --raw: encode control tokens such as <|user|> in the prompt as tokens, not as ordinary characters
    #[arg(long, requires = "raw")]
    parse_special: bool,
    /// System message, before the prompt
    #[arg(long, allow_hyphen_values = true, conflicts_with = "system_file")]
    system: Option<String>,
    /// A file with the system message
    #[arg(long, value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    system_file: Option<String>,
    /// Whether the model thinks before it answers (default: as its chat template says)
    #[arg(long, value_enum)]
    think: Option<Switch>,
    /// In a chat: keep the messages in a file, where the key Up finds them in later chats
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "file"], value_parser = path_not_stream(HISTORY))]
    history: Option<PathBuf>,
    /// Limit on the memory, for example 8GB: the need is printed, and a model that exceeds the limit is refused
    #[arg(long, value_name = "SIZE", value_parser = args::size)]
    memory: Option<u64>,
    #[command(flatten)]
    docs: DocsArgs,
    #[command(flatten)]
    drafts: DraftArgs,
    #[command(flatten)]
    prompts: PromptCacheArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// The texts of a run, and where its prompts come from.
impl Args {
    /// Whether prompts are typed on a terminal. Refuses options that leave a text without a place.
    fn chats(&self) -> Result<bool> {
        let chats = self.prompt.is_none() && self.file.is_none() && std::io::stdin().is_terminal();
        if chats && self.raw {
            return Err(
                UsageError::new("--raw continues a text: give it with --prompt, --file or on standard input").into()
            );
        }
        let prompt_is_read = self.prompt.as_deref().or(self.file.as_deref()).is_none_or(|text| text == "-");
        if self.system_file.as_deref() == Some("-") && prompt_is_read {
            return Err(UsageError::new(
                "--system-file - needs the prompt elsewhere: give --prompt, or --file with a file",
            )
            .into());
        }
        Ok(chats)
    }

    /// The prompt; `None` where prompts are typed.
    fn text(&self, chats: bool) -> Result<Option<String>> {
        Ok(match (&self.prompt, &self.file) {
            (Some(prompt), _) if prompt != "-" => Some(load::message(prompt)),
            (None, Some(file)) => Some(load::read_message(file)?),
            (None, None) if chats => None,
            _ => Some(load::read_message("-")?),
        })
    }

    /// The chat template of the model, unless a text is continued.
    fn template(&self, tokenizer: &Tokenizer, chats: bool) -> Result<Option<ChatTemplate>> {
        let template = match self.raw {
            true => None,
            false => ChatTemplate::of_model(tokenizer)?,
        };
        let has_system = self.system.is_some() || self.system_file.is_some();
        if template.is_none() && (has_system || self.think.is_some() || self.docs.is_given()) {
            bail!(
                "the model has no chat template, so a system message, --think and --docs have no place in its prompt"
            );
        }
        if chats && template.is_none() {
            bail!("a chat needs a chat template; give a prompt with -p to continue it");
        }
        Ok(template)
    }
}

pub(crate) fn execute(args: Args) -> Result<()> {
    let spec = args.model.as_deref().or(args.model_flag.as_deref()).unwrap_or_default();
    let chats = args.chats()?;
    let engine = args.engine.engine(args.memory)?;
    // Taken over before the model is loaded, so that nothing typed meanwhile is lost or reaches the shell.
    let mut console = if chats { Some(open_console(args.history.as_deref())?) } else { None };
    let mut docs = args.docs.open(&engine.pool)?;
    let system = system_message(&args)?.or_else(|| docs.is_some().then(|| docs::SYSTEM.to_owned()));
    let files = args.drafts.complete(args.engine.open(spec)?)?;
    let tokenizer = files.tokenizer()?;
    let guesses = files.guesses(Some(&tokenizer));
    load::note_guesses(guesses.iter().filter(|guess| !(args.raw && guess.is_about_chat())));
    let n_ctx = args.context.unwrap_or_else(|| files.config.default_context());
    let adapters = args.engine.adapters.load(&files)?;
    let plan = engine.plan(&files, n_ctx, Session::DEFAULT_CHUNK)?.with_adapters(adapters.as_ref());
    check_memory(args.memory, &plan, n_ctx)?;
    let sampler = args.sampling.sampler(&files, &tokenizer)?;
    let template = args.template(&tokenizer, chats)?;
    let prompt = args.text(chats)?;
    let model = engine.load(&files, &plan)?;
    let drafts = args.drafts.source(&files, (&engine, &model), n_ctx);
    let session = engine.session(model, n_ctx)?.with_adapters(AdapterSlot::new(adapters));
    let prompts = args.prompts.open(&session, &files)?;
    let backend = CraftsmanBackend::new(session, tokenizer).with_prompt_cache(prompts);
    let backend = backend.with_drafts(drafts.map(|drafts| drafts.speculation()).transpose()?);
    let interrupt = console.as_ref().map(Console::interrupt).unwrap_or_default();
    let generate = GenerateOptions { max_tokens: args.max_tokens, interrupt, ..GenerateOptions::default() };
    let answered = match (template, prompt) {
        (Some(template), prompt) => {
            let thinking = args.think.map(|think| think == Switch::On);
            let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let now_unix_s = since_1970.ok().and_then(|time| i64::try_from(time.as_secs()).ok());
            let options = ConversationOptions { system, thinking, now_unix_s, generate };
            let mut conversation = Conversation::new(backend, template, sampler, options);
            match (&mut console, prompt) {
                (Some(console), _) => chat::chat(console, &mut conversation, docs.as_mut(), args.history.as_deref()),
                (None, Some(prompt)) => answer(&mut conversation, Asked::new(&prompt, docs.as_mut())?).map(drop),
                (None, None) => Ok(()),
            }
        }
        (None, Some(prompt)) => {
            let prompt = match args.parse_special {
                true => Prompt::RawWithMarkers(&prompt),
                false => Prompt::Raw(&prompt),
            };
            continue_text(backend, sampler, &generate, prompt)
        }
        (None, None) => Ok(()),
    };
    answered.map_err(|error| match error.downcast_ref() {
        Some(moe_runtime::Error::Session(SessionError::Logit { .. })) => load::first_defect(&files).unwrap_or(error),
        _ => error,
    })
}

fn system_message(args: &Args) -> Result<Option<String>> {
    Ok(match (&args.system, &args.system_file) {
        (Some(system), _) => Some(load::message(system)),
        (None, Some(file)) => Some(load::read_message(file)?),
        (None, None) => None,
    })
}

/// Takes over the terminal for a chat that knows the messages of earlier ones.
fn open_console(history: Option<&Path>) -> Result<Console> {
    let messages = history.map(history::read).transpose()?.unwrap_or_default();
    let mut console = Console::open()?;
    messages.iter().for_each(|message| console.remember(message));
    Ok(console)
}

/// Prints the memory that the model needs, and refuses a model that exceeds the limit.
fn check_memory(allowed: Option<u64>, plan: &MemoryPlan, n_ctx: usize) -> Result<()> {
    let Some(allowed) = allowed else { return Ok(()) };
    let adapters = match plan.adapter_bytes {
        0 => String::new(),
        bytes => format!(" + adapters {}", size(bytes)),
    };
    output::note(format_args!(
        "memory: weights {}{adapters} + cache for {n_ctx} tokens {} + buffers {} = {}",
        size(plan.mapped_weights_bytes + plan.converted_weights_bytes),
        size(plan.cache_bytes),
        size(plan.scratch_bytes),
        size(plan.total_bytes())
    ));
    Ok(plan.check(allowed)?)
}
