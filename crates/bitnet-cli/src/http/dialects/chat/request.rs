//! From the fields of a request to orders and the shape of their answers.

use std::sync::Arc;

use moe_runtime::{ChatRequest, ToolSchemas};
use serde_json::{Value, json};

use super::super::calls;
use super::super::envelope::Envelope;
use super::super::sampling::{effort_tokens, loops, rules, sampling};
use super::super::unix_s;
use crate::http::answer::{Order, Rules};
use crate::http::app::App;
use crate::http::divergence::{Compared, Outline};
use crate::http::engine::{Engine, off_thread};
use crate::http::failure::Failure;
use crate::http::request::{Asked, Fields};

/// The shape of an answer.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) envelope: Envelope,
    pub(super) choices: usize,
    pub(super) stream: bool,
    /// Whether tokens have scores.
    pub(super) logprobs: bool,
    /// Whether a stream tells how much of the prompt is read.
    pub(super) return_progress: bool,
    /// Whether thoughts stand in the content.
    pub(super) thoughts_in_content: bool,
}

pub(super) async fn read(app: &App, asked: &Asked) -> Result<(Vec<Order>, Shape), Failure> {
    let (fields, engine) = (asked.fields(), &asked.engine);
    refuse(fields)?;
    let sampling = sampling(fields, engine.sampling)?;
    let choices = fields.count("n", 1..=engine.slots)?.unwrap_or(1);
    let most = app.settings.max_tokens;
    let max_tokens = match fields.count("max_completion_tokens", 0..=usize::MAX)? {
        Some(tokens) => tokens,
        None => fields.count("max_tokens", 0..=usize::MAX)?.unwrap_or(most),
    };
    let shape = Shape {
        envelope: Envelope::new(fields, engine, "chatcmpl-", choices)?,
        choices,
        stream: fields.flag("stream")?.unwrap_or(false),
        logprobs: logprobs(fields)?.is_some(),
        return_progress: fields.flag("return_progress")?.unwrap_or(false),
        thoughts_in_content: app.settings.thoughts_in_content,
    };
    let conversation = conversation(fields)?;
    let rules = all_rules(fields, engine, &conversation)?;
    let tools = (!conversation.tools.is_empty()).then(|| Arc::new(ToolSchemas::new(&conversation.tools)));
    let (prompt, outline) = off_thread(engine, move |engine| {
        let prompt = engine.chat_prompt(&conversation)?;
        let outline = Outline::new(&conversation, &prompt.tokens, engine.facts.n_ctx);
        Ok((prompt, outline))
    })
    .await?;
    let caller = asked.caller();
    let Compared { changed, .. } = app.outlines.compare(None, shape.envelope.id(), &caller.session(), outline);
    let order = Order {
        prompt,
        sampling,
        rules,
        max_tokens: max_tokens.min(most),
        loops: loops(),
        tools,
        logprobs: logprobs(fields)?,
        prompt_logprobs: false,
        changed,
        caller,
    };
    Ok((order.times(choices), shape))
}

fn refuse(fields: Fields<'_>) -> Result<(), Failure> {
    fields.refuse("functions", "use `tools`")?;
    fields.refuse("function_call", "use `tool_choice`")?;
    fields.refuse("audio", "this model reads and writes text only")?;
    fields.refuse("web_search_options", "this server opens no connections")?;
    let modalities = fields.texts("modalities", 8)?;
    if modalities.iter().any(|modality| modality != "text") {
        return Err(Failure::field("modalities", "`modalities` can be [\"text\"] only: this model writes text"));
    }
    Ok(())
}

/// The messages and tools, for the model's chat template.
pub(in super::super) fn conversation(fields: Fields<'_>) -> Result<ChatRequest, Failure> {
    let Some(messages) = fields.list("messages")? else {
        return Err(Failure::field("messages", "`messages` is missing: send a list with at least one message"));
    };
    if messages.is_empty() {
        return Err(Failure::field("messages", "`messages` is empty: send at least one message"));
    }
    let messages = messages.iter().enumerate().map(|(index, message)| self::message(message, index));
    let messages = messages.collect::<Result<Vec<Value>, Failure>>()?;
    let mut tools = fields.list("tools")?.unwrap_or_default().to_vec();
    calls::keep_allowed(fields, &mut tools);
    for (index, tool) in tools.iter().enumerate() {
        let place = format!("tools[{index}]");
        let tool = Fields::at(tool, &place)?;
        if tool.text("type")?.is_some_and(|ty| ty != "function") {
            return Err(Failure::field(tool.name("type"), format!("`{place}.type` has to be \"function\"")));
        }
    }
    let (enable_thinking, clear_thinking) = thinking(fields)?;
    Ok(ChatRequest {
        messages,
        tools,
        enable_thinking,
        clear_thinking,
        add_generation_prompt: true,
        now_unix_s: i64::try_from(unix_s()).ok(),
        ..ChatRequest::default()
    })
}

/// Stop strings, biases, the budget of the thought, and the form of the answer.
fn all_rules(fields: Fields<'_>, engine: &Engine, conversation: &ChatRequest) -> Result<Rules, Failure> {
    let one_call = fields.flag("parallel_tool_calls")? == Some(false);
    let strict = calls::strict_names(&conversation.tools);
    let calls = calls::form(engine, (&conversation.tools, &strict), &calls::demand(fields)?, one_call)?;
    let rules = rules(fields, engine)?;
    if calls.as_ref().is_some_and(|calls| calls.is_whole) && rules.form.is_some() {
        return Err(Failure::field("tool_choice", "an answer that has to call a tool has no `response_format`"));
    }
    let thinking = fields.object("thinking")?;
    let budget = thinking.and_then(|thinking| thinking.get("budget_tokens")).and_then(Value::as_u64);
    let effort = fields.text("reasoning_effort")?.and_then(effort_tokens);
    let thought_budget = budget.and_then(|tokens| usize::try_from(tokens).ok()).or(effort);
    Ok(Rules { thought_budget, form: calls::before(calls, rules.form.clone()), ..rules })
}

/// How many of the most likely tokens are told beside each token.
fn logprobs(fields: Fields<'_>) -> Result<Option<usize>, Failure> {
    let top = fields.count("top_logprobs", 0..=20)?;
    match fields.flag("logprobs")? {
        Some(true) => Ok(Some(top.unwrap_or(0))),
        _ if top.is_some_and(|top| top > 0) => {
            Err(Failure::field("top_logprobs", "`top_logprobs` needs `logprobs`: true"))
        }
        _ => Ok(None),
    }
}

/// A message whose role and parts the chat template knows. The template would leave out a role and print a part that it does
/// not know.
fn message(message: &Value, index: usize) -> Result<Value, Failure> {
    let place = format!("messages[{index}]");
    let fields = Fields::at(message, &place)?;
    let wrong = |field: &str, problem: &str| {
        let name = fields.name(field);
        Failure::field(&*name, format!("`{name}` {problem}"))
    };
    match fields.text("role")? {
        Some(role) if ChatRequest::ROLES.contains(&role) => {}
        Some(_) => return Err(wrong("role", &format!("has to be one of {}", ChatRequest::ROLES.join(", ")))),
        None => return Err(wrong("role", "is missing")),
    }
    let mut message = message.clone();
    match fields.get("content") {
        None | Some(Value::String(_)) => {}
        Some(Value::Array(parts)) => {
            let parts = parts.iter().enumerate();
            let name = fields.name("content");
            message["content"] =
                parts.map(|(number, part)| self::part(part, &format!("{name}[{number}]"))).collect::<Result<_, _>>()?;
        }
        Some(_) => return Err(wrong("content", "has to be a text or a list of parts")),
    }
    Ok(message)
}

/// A part of a message as a part of text.
fn part(part: &Value, place: &str) -> Result<Value, Failure> {
    let text = match part["type"].as_str() {
        Some("refusal") => part["refusal"].as_str(),
        Some("text" | "input_text" | "output_text") => part["text"].as_str(),
        Some(_) => None,
        None => part.as_str().or_else(|| part["text"].as_str()),
    };
    match text {
        Some(text) => Ok(json!({ "type": "text", "text": text })),
        None => Err(Failure::field(place, format!("`{place}` has to be a part of text: this model reads text only"))),
    }
}

/// Whether the model thinks, and whether it sees its earlier thoughts; `None` leaves the template's default.
fn thinking(fields: Fields<'_>) -> Result<(Option<bool>, Option<bool>), Failure> {
    let flag = |object: Option<&serde_json::Map<String, Value>>, name: &str| object?.get(name)?.as_bool();
    let template = fields.object("chat_template_kwargs")?;
    let mut enable = flag(template, "enable_thinking");
    if let Some(effort) = fields.text("reasoning_effort")? {
        enable = enable.or(Some(effort != "none"));
    }
    if let Some(thinking) = fields.object("thinking")? {
        enable = enable.or(thinking.get("type").and_then(Value::as_str).map(|ty| ty != "disabled"));
    }
    Ok((enable, flag(template, "clear_thinking")))
}
