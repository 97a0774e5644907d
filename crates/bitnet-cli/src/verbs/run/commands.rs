//! The commands of a chat: lines that begin with a slash.

use std::path::Path;

use anyhow::{Context, Result, bail};
use moe_runtime::{Conversation, InferenceBackend, Statistics};
use serde_json::Value;

use super::stream::drafts;
use crate::load;
use crate::output;

/// Most bytes of a saved conversation.
const MAX_CONVERSATION_BYTES: u64 = 64 << 20;

const HELP: &str = "commands:
  /system [TEXT]       show or set the system message
  /think on|off|auto   think before the answer, or do as the chat template says
  /clear               forget the turns
  /save FILE           write the messages to a file, as JSON
  /load FILE           go on with the messages of a file
  /stats               turns, tokens and speed so far
  /help                this list
a space before the slash sends the line as a message";

/// The figures of a chat.
#[derive(Debug, Default)]
pub(super) struct ChatStatistics {
    answers: usize,
    total: Statistics,
}

impl ChatStatistics {
    /// Adds the tokens and times of one more answer.
    pub(super) fn add(&mut self, answer: &Statistics) {
        self.answers += 1;
        self.total.prompt_tokens += answer.prompt_tokens;
        self.total.generated_tokens += answer.generated_tokens;
        self.total.prefill += answer.prefill;
        self.total.decode += answer.decode;
        self.total.drafts.add(answer.drafts);
    }
}

/// Carries out a line that is a command; `false` for a message.
///
/// # Errors
/// An unknown command, one without its argument, and files that cannot be read or written.
pub(super) fn carry_out<B: InferenceBackend>(
    line: &str,
    conversation: &mut Conversation<B>,
    statistics: &ChatStatistics,
) -> Result<bool> {
    if !line.starts_with('/') {
        return Ok(false);
    }
    let (command, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    match (command, argument.trim()) {
        ("/help", "") => output::note(HELP),
        ("/system", "") => match conversation.system() {
            Some(text) => output::note(format_args!("system message: {}", output::lines(text))),
            None => output::note("there is no system message"),
        },
        ("/system", text) => conversation.set_system(Some(text.to_owned())),
        ("/think", "on") => conversation.set_thinking(Some(true)),
        ("/think", "off") => conversation.set_thinking(Some(false)),
        ("/think", "auto") => conversation.set_thinking(None),
        ("/think", _) => bail!("write /think on, /think off or /think auto"),
        ("/clear", "") => {
            let turns = conversation.turns();
            conversation.drop_oldest(turns);
        }
        ("/save" | "/load", "") => bail!("write the name of a file behind {command}"),
        ("/save", file) => save(conversation, Path::new(file))?,
        ("/load", file) => restore(conversation, Path::new(file))?,
        ("/stats", "") => show(conversation, statistics)?,
        _ => bail!(
            "there is no command {}; /help lists them, and a space before the slash sends the line",
            output::name(line)
        ),
    }
    Ok(true)
}

fn save<B: InferenceBackend>(conversation: &Conversation<B>, path: &Path) -> Result<()> {
    let mut json = serde_json::to_string_pretty(conversation.messages())?;
    json.push('\n');
    gguf_bitnet::write_atomic(path, json.as_bytes())?;
    output::note(format_args!("{} saved in {}", turns(conversation), path.display()));
    Ok(())
}

fn restore<B: InferenceBackend>(conversation: &mut Conversation<B>, path: &Path) -> Result<()> {
    let text = load::read_at_most(path, MAX_CONVERSATION_BYTES)?;
    let messages: Vec<Value> =
        serde_json::from_str(&text).with_context(|| format!("{} is no list of messages in JSON", path.display()))?;
    conversation.set_messages(messages).with_context(|| format!("{} is no conversation", path.display()))?;
    output::note(format_args!("{} taken from {}", turns(conversation), path.display()));
    Ok(())
}

fn show<B: InferenceBackend>(conversation: &Conversation<B>, statistics: &ChatStatistics) -> Result<()> {
    let ChatStatistics { answers, total } = statistics;
    output::note(format_args!(
        "{}, {} of {} tokens of the context; in {answers} answers {} tokens read at {:.1}/s, {} written at {:.1}/s{}",
        turns(conversation),
        conversation.count_tokens()?,
        conversation.n_ctx(),
        total.prompt_tokens,
        total.prefill_tokens_per_s(),
        total.generated_tokens,
        total.decode_tokens_per_s(),
        drafts(total.drafts),
    ));
    Ok(())
}

fn turns<B: InferenceBackend>(conversation: &Conversation<B>) -> String {
    match conversation.turns() {
        1 => "1 turn".to_owned(),
        turns => format!("{turns} turns"),
    }
}
