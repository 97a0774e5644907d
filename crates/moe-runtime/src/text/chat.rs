//! The chat template: from messages to the prompt text, as the model's own Jinja template spells it.
//!
//! Templates come from model files and may be malicious: they run on a budget of instructions and of the bytes and items
//! that they make and walk, with bounded nesting, on a thread whose stack fits that budget, without access to files or a
//! clock, and end in an error, never in a panic.
//!
//! Rendering follows what `transformers` does (Jinja2 with `trim_blocks` and `lstrip_blocks`, Python's string methods,
//! Python's spelling of values, its own `tojson`), after a normalisation of the messages (module `message`): a
//! `developer` is a `system`, absent content is empty, tool results are text, tool arguments are objects.
//!
//! Content is kept apart from the template's own text (module `stand_ins`), so that words of users, tools and documents
//! never become control tokens.

mod arguments;
mod clock;
mod conversation;
mod filters;
mod generators;
mod literals;
mod message;
mod methods;
mod operators;
mod percent;
mod python;
mod rewrite;
mod sequences;
mod stand_ins;
mod wrap;

use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};
use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::text::error::TextError;
use crate::text::prompt::ChatPrompt;
use crate::text::tokenizer::Tokenizer;
pub(crate) use conversation::check_message;
use stand_ins::{Disguise, Markers};

/// Instructions that one rendering may execute, where 64 bytes or two items that it makes or walks count as one; a turn
/// of an ordinary template costs a few hundred. So one rendering makes at most 51 MB.
const FUEL: u64 = 800_000;
/// Stack of the thread that renders, in bytes. An instruction can nest a value one level deeper, and the engine walks
/// nested values by recursion, at up to 640 bytes a level; the pages are only touched by templates that try.
#[cfg(not(target_family = "wasm"))]
const STACK_BYTES: usize = 512 << 20;
/// Nesting of blocks, macros and includes.
const RECURSION: usize = 100;
/// Longest template accepted, in bytes.
const MAX_TEMPLATE_BYTES: usize = 1 << 20;
const NAME: &str = "chat_template";
/// The template whose literals find their like in disguised content.
const SEARCHING: &str = "searching_template";

/// One conversation to render.
///
/// Messages are JSON objects in the shape of OpenAI's chat API: `role`, `content` (text, null or a list of parts),
/// `reasoning_content`, `tool_calls`, `tool_call_id`.
#[derive(Clone, Debug, Default)]
pub struct ChatRequest {
    /// The messages, oldest first.
    pub messages: Vec<Json>,
    /// Tool declarations; empty means that the template sees none.
    pub tools: Vec<Json>,
    /// Documents to answer from, usually objects with `title` and `text`; empty means that the template sees none. Only
    /// some templates write them.
    pub documents: Vec<Json>,
    /// Whether the model is to think; `None` leaves the template's default.
    pub enable_thinking: Option<bool>,
    /// Whether earlier turns lose their reasoning; `None` leaves the template's default.
    pub clear_thinking: Option<bool>,
    /// Whether the prompt ends where the assistant is to go on.
    pub add_generation_prompt: bool,
    /// The time that `strftime_now` shows, in seconds since 1970 of the wall clock it is to be read from. Without it
    /// the template does not see that function: a rendering depends on no clock.
    pub now_unix_s: Option<i64>,
}

impl ChatRequest {
    /// The time of measurements, 2026-01-01 00:00:00: their prompts are the same on every day.
    pub const MEASURED_NOW_UNIX_S: i64 = 1_767_225_600;

    /// A conversation of one user turn, after a system message if there is one, waiting for the assistant.
    #[must_use]
    pub fn user(system: Option<&str>, text: &str) -> Self {
        let system = system.map(|s| serde_json::json!({"role": "system", "content": s}));
        let user = serde_json::json!({"role": "user", "content": text});
        Self { messages: system.into_iter().chain([user]).collect(), add_generation_prompt: true, ..Self::default() }
    }
}

/// A compiled chat template.
///
/// ```
/// use moe_runtime::{ChatRequest, ChatTemplate};
/// # fn main() -> moe_runtime::Result<()> {
/// let template = ChatTemplate::from_source("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}")?;
/// assert_eq!(template.render(&ChatRequest::user(None, "hi"))?, "<|user|>hi");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
    /// The control tokens of the model, and its user-defined ones that are markers to the template; `None` where the
    /// template stands without a model.
    markers: Option<Markers>,
    /// The user-defined ones among them.
    marker_ids: Arc<[u32]>,
}

impl ChatTemplate {
    /// The template that came with a model, with the begin and end tokens of its tokenizer; `None` when the model has
    /// none.
    ///
    /// # Errors
    /// As [`ChatTemplate::from_source`].
    pub fn of_model(tokenizer: &Tokenizer) -> Result<Option<Self>> {
        let Some(source) = tokenizer.chat_template() else { return Ok(None) };
        Self::for_tokenizer(source, tokenizer).map(Some)
    }

    /// Compiles a template for prompts of a tokenizer: [`ChatTemplate::prompt`] keeps content apart from the control
    /// tokens of that tokenizer, whose begin and end tokens the template sees.
    ///
    /// # Errors
    /// As [`ChatTemplate::from_source`]; control tokens that begin and end with more than a hundred thousand different
    /// characters.
    pub fn for_tokenizer(source: &str, tokenizer: &Tokenizer) -> Result<Self> {
        let ids = tokenizer.special_ids();
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
        let mut template = Self::from_source(source)?.with_tokens(text(ids.bos), text(ids.eos));
        let marker_ids = tokenizer.markers(source);
        let marker_texts = marker_ids.iter().filter_map(|&id| tokenizer.token_text(id));
        let Some(markers) = Markers::new(source, tokenizer.control_texts().chain(marker_texts)) else {
            let reason = "the control tokens have too many different first and last characters".to_owned();
            return Err(Error::Text(TextError::ChatTemplate { reason }));
        };
        let searching = rewrite::rewrite(markers.searching());
        template.environment.add_template_owned(SEARCHING, searching).map_err(|e| template_error(&e))?;
        template.markers = Some(markers);
        template.marker_ids = marker_ids.into();
        Ok(template)
    }

    /// Compiles a template apart from a model: it knows no control tokens, so [`ChatTemplate::prompt`] cannot keep
    /// content apart from them. Prompts for a model take [`ChatTemplate::of_model`] or [`ChatTemplate::for_tokenizer`].
    ///
    /// # Errors
    /// [`TextError::ChatTemplate`] when it is no Jinja, or longer than 1 MiB.
    pub fn from_source(source: &str) -> Result<Self> {
        if source.len() > MAX_TEMPLATE_BYTES {
            let reason = format!("it has {} bytes, more than the {MAX_TEMPLATE_BYTES} allowed", source.len());
            return Err(Error::Text(TextError::ChatTemplate { reason }));
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| template_error(&e))?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION);
        environment.set_debug(false);
        // The templates here are two forms of one: neither may be included.
        environment.set_path_join_callback(|name, _| format!("no {name}").into());
        environment.set_loader(|_| -> std::result::Result<Option<String>, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, "there is no other template"))
        });
        // It would show the inside of the engine.
        environment.remove_global("debug");
        environment.set_unknown_method_callback(methods::call);
        python::install(&mut environment);
        operators::install(&mut environment);
        filters::install(&mut environment);
        generators::install(&mut environment);
        environment.add_template_owned(NAME, rewrite::rewrite(source)).map_err(|e| template_error(&e))?;
        Ok(Self {
            environment,
            bos_token: String::new(),
            eos_token: String::new(),
            markers: None,
            marker_ids: Arc::default(),
        })
    }

    /// Sets the values of `bos_token` and `eos_token` in the template.
    #[must_use]
    pub fn with_tokens(mut self, bos_token: &str, eos_token: &str) -> Self {
        bos_token.clone_into(&mut self.bos_token);
        eos_token.clone_into(&mut self.eos_token);
        self
    }

    /// The prompt text of a conversation, for readers. [`ChatTemplate::prompt`] makes what a model reads.
    ///
    /// # Errors
    /// [`TextError::ChatMessage`] for a message no template could render, [`TextError::ChatRefused`] with the template's own
    /// words when it raises, [`TextError::ChatTemplate`] when it fails or exceeds its budget.
    pub fn render(&self, request: &ChatRequest) -> Result<String> {
        let request = normalised(request)?;
        on_large_stack(|| self.run(NAME, &request))
    }

    /// The prompt of a conversation, in which content is words even where it spells control tokens.
    ///
    /// The text is that of [`ChatTemplate::render`], with one exception: where the template cuts user text at a control
    /// token that it also writes itself, or escapes characters of content, the text may differ in that place.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn prompt(&self, request: &ChatRequest) -> Result<ChatPrompt> {
        let request = normalised(request)?;
        on_large_stack(|| {
            let plain = self.run(NAME, &request)?;
            match &self.markers {
                Some(markers) => self.kept_apart(markers, plain, &request),
                None => Ok(ChatPrompt::of_markup(plain)),
            }
        })
    }

    /// Renders disguised content. A template that cuts or compares content at control tokens gives the plain text only
    /// where it finds what it looks for, so up to four ways are tried; content stays words in all of them.
    fn kept_apart(&self, markers: &Markers, plain: String, request: &ChatRequest) -> Result<ChatPrompt> {
        let content = [&request.messages, &request.tools, &request.documents];
        let mut differs = None;
        let mut failure = None;
        for (name, trusts_assistant) in [(SEARCHING, false), (NAME, false), (SEARCHING, true), (NAME, true)] {
            let mut disguise = Disguise::new(markers, trusts_assistant, content);
            let [messages, tools, documents] = content.map(|values| disguise.put_on(values));
            if disguise.is_short() {
                let reason = "the conversation has too many different private-use characters".to_owned();
                return Err(Error::Text(TextError::ChatTemplate { reason }));
            }
            if !disguise.is_used() && !trusts_assistant {
                return Ok(ChatPrompt::of_markup(plain));
            }
            match self.run(name, &ChatRequest { messages, tools, documents, ..*request }) {
                Ok(rendered) => match disguise.take_off(&rendered, &plain) {
                    Ok(prompt) => return Ok(prompt.with_markers(&self.marker_ids)),
                    Err(prompt) => {
                        differs.get_or_insert(prompt.with_markers(&self.marker_ids));
                    }
                },
                Err(error) => failure = Some(error),
            }
        }
        differs.map_or_else(|| Err(failure.expect("a rendering differs or fails")), Ok)
    }

    /// Renders a conversation whose messages are normal.
    fn run(&self, name: &str, request: &ChatRequest) -> Result<String> {
        let list = |values: &[Json]| Value::from(Serde((!values.is_empty()).then_some(values)));
        let mut variables = vec![
            ("messages", Serde(&request.messages).into()),
            ("tools", list(&request.tools)),
            ("documents", list(&request.documents)),
            ("add_generation_prompt", request.add_generation_prompt.into()),
            ("bos_token", self.bos_token.as_str().into()),
            ("eos_token", self.eos_token.as_str().into()),
        ];
        // Left undefined when not given: templates ask `is defined`.
        variables.extend(request.enable_thinking.map(|on| ("enable_thinking", on.into())));
        variables.extend(request.clear_thinking.map(|on| ("clear_thinking", on.into())));
        variables.extend(request.now_unix_s.map(|now| {
            let shown = move |form: &str| clock::strftime(now, form);
            ("strftime_now", Value::from_function(shown))
        }));
        let variables = Value::from_pairs(variables);

        let template = self.environment.get_template(name).map_err(|e| template_error(&e))?;
        template.render(variables).map_err(|e| refusal(&e).unwrap_or_else(|| template_error(&e)))
    }
}

/// The request with its messages in normal form.
fn normalised(request: &ChatRequest) -> Result<ChatRequest> {
    Ok(ChatRequest { messages: message::normalise(&request.messages)?, ..request.clone() })
}

/// Runs a rendering where deep values cannot overflow the stack, neither while they are used nor while they are freed.
#[cfg(not(target_family = "wasm"))]
fn on_large_stack<T: Send>(render: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let fail =
        |e: std::io::Error| Error::Text(TextError::ChatTemplate { reason: format!("its thread did not start ({e})") });
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, render).map_err(fail)?;
        // The template comes from a file: a panic of the engine on it must not end the process.
        let panicked =
            |_| Err(Error::Text(TextError::ChatTemplate { reason: "the template engine failed on it".to_owned() }));
        thread.join().unwrap_or_else(panicked)
    })
}

/// WASM has no threads; the host turns an overflow of the stack into an error.
#[cfg(target_family = "wasm")]
fn on_large_stack<T: Send>(render: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    render()
}

/// The message of a `raise_exception` call, if that is what stopped the template.
fn refusal(error: &minijinja::Error) -> Option<Error> {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(e) = cause {
        if let Some(raised) = e.downcast_ref::<python::Raised>() {
            return Some(Error::Text(TextError::ChatRefused { message: raised.0.clone() }));
        }
        cause = e.source();
    }
    None
}

fn template_error(error: &minijinja::Error) -> Error {
    let mut reason = match error.kind() {
        ErrorKind::OutOfFuel => "it runs longer than any chat template should".to_owned(),
        _ => error.to_string(),
    };
    let mut cause = std::error::Error::source(error);
    while let Some(e) = cause {
        reason = format!("{reason}: {e}");
        cause = e.source();
    }
    Error::Text(TextError::ChatTemplate { reason })
}
