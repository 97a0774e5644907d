//! From the fields of a request to an order and the shape of its answer.

use std::sync::Arc;

use moe_runtime::{ChatRequest, SamplerConfig, ToolSchemas};
use serde_json::{Map, Value, json};

use super::super::calls;
use super::super::sampling::{effort_tokens, format_form, loops};
use super::super::unix_s;
use super::history::history;
use super::tools::Tools;
use crate::http::answer::{Order, Rules};
use crate::http::app::App;
use crate::http::divergence::{Compared, Divergence, Outline};
use crate::http::engine::{Engine, off_thread};
use crate::http::failure::Failure;
use crate::http::ids::Ids;
use crate::http::number::short;
use crate::http::request::{Asked, Fields};
use crate::http::seal::Seal;

/// Most entries of `include`.
const MAX_INCLUDED: usize = 64;

/// The shape of an answer.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) id: String,
    pub(super) created_s: u64,
    pub(super) model: String,
    pub(super) stream: bool,
    /// Whether texts have the scores of their tokens.
    pub(super) has_scores: bool,
    pub(super) tools: Tools,
    /// Seals the thoughts that the client sends back.
    pub(super) seal: Seal,
    /// The fields of the request that the answer repeats.
    pub(super) echoed: Map<String, Value>,
    /// Where the prompt leaves that of the response that the client names.
    pub(super) divergence: Divergence,
}

pub(super) async fn read(app: &App, asked: &Asked) -> Result<(Order, Shape), Failure> {
    let (fields, engine) = (asked.fields(), &asked.engine);
    refuse(fields)?;
    let base = engine.sampling;
    let sampling = SamplerConfig {
        temperature: fields.number("temperature", 0.0..=2.0)?.map_or(base.temperature, |t| t as f32),
        top_p: fields.number("top_p", 0.0..=1.0)?.map_or(base.top_p, |p| (p as f32).max(f32::MIN_POSITIVE)),
        ..base
    };
    let most = app.settings.max_tokens;
    let max_tokens = fields.count("max_output_tokens", 1..=usize::MAX)?.unwrap_or(most).min(most);
    let stream = fields.flag("stream")?.unwrap_or(false);
    let (conversation, tools) = conversation(fields, engine)?;
    let rules = rules(fields, engine, (&conversation, &tools))?;
    let schemas = (!conversation.tools.is_empty()).then(|| Arc::new(ToolSchemas::new(&conversation.tools)));
    let (prompt, outline) = off_thread(engine, move |engine| {
        let prompt = engine.chat_prompt(&conversation)?;
        let outline = Outline::new(&conversation, &prompt.tokens, engine.facts.n_ctx);
        Ok((prompt, outline))
    })
    .await?;
    let compared = fields.object("prompt_cache_options")?.and_then(|options| options.get("comparison_response_id"));
    let (id, caller) = (Ids::make("resp_"), asked.caller());
    let Compared { named, changed } =
        app.outlines.compare(compared.and_then(Value::as_str), &id, &caller.session(), outline);
    let logprobs = scores(fields)?;
    let shape = Shape {
        divergence: named,
        id,
        created_s: unix_s(),
        model: engine.facts.id.clone(),
        stream,
        tools,
        seal: engine.seal.clone(),
        has_scores: logprobs.is_some(),
        echoed: echoed(fields, sampling),
    };
    let order = Order {
        prompt,
        sampling,
        rules,
        max_tokens,
        loops: loops(),
        tools: schemas,
        logprobs,
        prompt_logprobs: false,
        changed,
        caller,
    };
    Ok((order, shape))
}

/// How many of the most likely tokens are told beside each token of a text; `None` for no scores.
fn scores(fields: Fields<'_>) -> Result<Option<usize>, Failure> {
    let includes = fields.texts("include", MAX_INCLUDED)?;
    let top = fields.count("top_logprobs", 0..=20)?.filter(|&top| top > 0);
    Ok(top.or_else(|| includes.iter().any(|part| part == "message.output_text.logprobs").then_some(0)))
}

fn refuse(fields: Fields<'_>) -> Result<(), Failure> {
    if fields.flag("background")? == Some(true) {
        return Err(Failure::field("background", "`background` is not supported: wait for the answer, or stream it"));
    }
    fields.refuse("conversation", "send the whole input")?;
    fields.refuse("previous_response_id", "answers are not kept here: send the whole input")?;
    fields.refuse("prompt", "send the text of the prompt")?;
    if fields.text("truncation")? == Some("auto") {
        let message = "`truncation` cannot be \"auto\": a prompt that is too long is refused, and never cut in silence";
        return Err(Failure::field("truncation", message));
    }
    Ok(())
}

/// The messages for the model's chat template, and the tools.
pub(super) fn conversation(fields: Fields<'_>, engine: &Engine) -> Result<(ChatRequest, Tools), Failure> {
    let mut tools = Tools::read(fields.list("tools")?.unwrap_or_default())?;
    calls::keep_allowed(fields, &mut tools.functions);
    let effort = fields.object("reasoning")?.and_then(|reasoning| reasoning.get("effort")).and_then(Value::as_str);
    let request = ChatRequest {
        messages: history(fields, &engine.seal)?,
        tools: tools.functions.clone(),
        enable_thinking: effort.map(|effort| effort != "none"),
        add_generation_prompt: true,
        now_unix_s: i64::try_from(unix_s()).ok(),
        ..ChatRequest::default()
    };
    Ok((request, tools))
}

/// The budget of the thought, and the form of the answer.
fn rules(fields: Fields<'_>, engine: &Engine, (conversation, tools): (&ChatRequest, &Tools)) -> Result<Rules, Failure> {
    let one_call = fields.flag("parallel_tool_calls")? == Some(false);
    let calls = calls::form(engine, (&conversation.tools, &tools.strict), &calls::demand(fields)?, one_call)?;
    let format = fields.object("text")?.and_then(|text| text.get("format"));
    let form = format_form("text.format", format.and_then(|format| format.get("type")), |()| {
        format.and_then(|format| format.get("schema")).cloned()
    })?;
    let effort = fields.object("reasoning")?.and_then(|reasoning| reasoning.get("effort")).and_then(Value::as_str);
    Ok(Rules { thought_budget: effort.and_then(effort_tokens), form: calls::before(calls, form), ..Rules::default() })
}

/// The fields that typed clients expect in the answer, as the request has them.
fn echoed(fields: Fields<'_>, sampling: SamplerConfig) -> Map<String, Value> {
    let as_sent = |name: &str, default: Value| (name.to_owned(), fields.get(name).cloned().unwrap_or(default));
    Map::from_iter([
        as_sent("instructions", Value::Null),
        as_sent("max_output_tokens", Value::Null),
        as_sent("metadata", json!({})),
        as_sent("parallel_tool_calls", true.into()),
        ("previous_response_id".to_owned(), Value::Null),
        as_sent("reasoning", json!({ "effort": null, "summary": null })),
        ("store".to_owned(), false.into()),
        ("temperature".to_owned(), short(sampling.temperature)),
        as_sent("text", json!({ "format": { "type": "text" } })),
        as_sent("tool_choice", "auto".into()),
        as_sent("tools", json!([])),
        as_sent("top_logprobs", 0.into()),
        ("top_p".to_owned(), short(sampling.top_p)),
        ("truncation".to_owned(), "disabled".into()),
        as_sent("user", Value::Null),
    ])
}
