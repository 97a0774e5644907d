//! From the fields of a request to an order and the shape of its answer.

use std::sync::Arc;

use moe_runtime::{ChatRequest, SamplerConfig, StopStrings, ToolSchemas};
use serde_json::{Value, json};

use super::super::calls;
use super::super::sampling::{effort_tokens, format_form, loops};
use super::super::unix_s;
use super::history::history;
use crate::http::answer::{Order, Rules};
use crate::http::app::App;
use crate::http::divergence::{Compared, Divergence, Outline};
use crate::http::engine::{Engine, off_thread};
use crate::http::failure::Failure;
use crate::http::ids::Ids;
use crate::http::request::{Asked, Fields};
use crate::http::seal::Seal;

/// The shape of an answer.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) stream: bool,
    /// Seals the thoughts that the client sends back.
    pub(super) seal: Seal,
    /// Where the prompt leaves that of the message that the client names.
    pub(super) divergence: Divergence,
}

pub(super) async fn read(app: &App, asked: &Asked) -> Result<(Order, Shape), Failure> {
    let (fields, engine) = (asked.fields(), &asked.engine);
    let Some(max_tokens) = fields.count("max_tokens", 1..=usize::MAX)? else {
        return Err(Failure::field("max_tokens", "`max_tokens` is missing: send the most tokens of the answer"));
    };
    let base = engine.sampling;
    let sampling = SamplerConfig {
        temperature: fields.number("temperature", 0.0..=1.0)?.map_or(base.temperature, |t| t as f32),
        top_p: fields.number("top_p", 0.0..=1.0)?.map_or(base.top_p, |p| (p as f32).max(f32::MIN_POSITIVE)),
        top_k: fields.count("top_k", 0..=usize::MAX)?.unwrap_or(base.top_k),
        ..base
    };
    let conversation = conversation(fields, engine)?;
    let rules = rules(fields, engine, &conversation)?;
    let tools = (!conversation.tools.is_empty()).then(|| Arc::new(ToolSchemas::new(&conversation.tools)));
    let (prompt, outline) = off_thread(engine, move |engine| {
        let prompt = engine.chat_prompt(&conversation)?;
        let outline = Outline::new(&conversation, &prompt.tokens, engine.facts.n_ctx);
        Ok((prompt, outline))
    })
    .await?;
    let previous = fields.object("diagnostics")?.and_then(|asked| asked.get("previous_message_id"));
    let (id, caller) = (Ids::make("msg_"), asked.caller());
    let Compared { named, changed } =
        app.outlines.compare(previous.and_then(Value::as_str), &id, &caller.session(), outline);
    let shape = Shape {
        divergence: named,
        id,
        model: engine.facts.id.clone(),
        stream: fields.flag("stream")?.unwrap_or(false),
        seal: engine.seal.clone(),
    };
    let max_tokens = max_tokens.min(app.settings.max_tokens);
    let order = Order {
        prompt,
        sampling,
        rules,
        max_tokens,
        loops: loops(),
        tools,
        logprobs: None,
        prompt_logprobs: false,
        changed,
        caller,
    };
    Ok((order, shape))
}

/// The messages and tools, for the model's chat template.
pub(super) fn conversation(fields: Fields<'_>, engine: &Engine) -> Result<ChatRequest, Failure> {
    let thinking = fields.object("thinking")?.and_then(|thinking| thinking.get("type")).and_then(Value::as_str);
    Ok(ChatRequest {
        messages: history(fields, &engine.seal)?,
        tools: tools(fields)?,
        // Without the field, clients expect text first and no thought.
        enable_thinking: Some(thinking.is_some_and(|ty| ty != "disabled")),
        add_generation_prompt: true,
        now_unix_s: i64::try_from(unix_s()).ok(),
        ..ChatRequest::default()
    })
}

/// Stop strings, the budget of the thought, and the form of the answer.
fn rules(fields: Fields<'_>, engine: &Engine, conversation: &ChatRequest) -> Result<Rules, Failure> {
    let choice = fields.object("tool_choice")?;
    let one_call = choice.and_then(|choice| choice.get("disable_parallel_tool_use")) == Some(&Value::Bool(true));
    let strict = calls::strict_names(fields.list("tools")?.unwrap_or_default());
    let calls = calls::form(engine, (&conversation.tools, &strict), &calls::demand(fields)?, one_call)?;
    let config = fields.object("output_config")?;
    let format = config.and_then(|config| config.get("format"));
    let form = format_form("output_config.format", format.and_then(|format| format.get("type")), |()| {
        format.and_then(|format| format.get("schema")).cloned()
    })?;
    let budget = fields.object("thinking")?.and_then(|thinking| thinking.get("budget_tokens")).and_then(Value::as_u64);
    let effort = config.and_then(|config| config.get("effort")).and_then(Value::as_str).and_then(effort_tokens);
    Ok(Rules {
        stops: fields.texts("stop_sequences", StopStrings::MAX)?,
        bias: Vec::new(),
        thought_budget: budget.and_then(|tokens| usize::try_from(tokens).ok()).or(effort),
        form: calls::before(calls, form),
    })
}

/// The tools of the client; those that run on the vendor's servers are left out.
fn tools(fields: Fields<'_>) -> Result<Vec<Value>, Failure> {
    let mut tools = Vec::new();
    for (index, tool) in fields.list("tools")?.unwrap_or_default().iter().enumerate() {
        let place = format!("tools[{index}]");
        let tool = Fields::at(tool, &place)?;
        if tool.text("type")?.is_some_and(|ty| ty != "custom") {
            continue;
        }
        let Some(name) = tool.text("name")? else {
            return Err(Failure::field(tool.name("name"), format!("`{place}.name` is missing")));
        };
        let mut function = json!({ "name": name });
        if let Some(description) = tool.text("description")? {
            function["description"] = description.into();
        }
        let schema = tool.object("input_schema")?.map_or_else(|| json!({ "type": "object" }), |o| o.clone().into());
        function["parameters"] = schema;
        tools.push(json!({ "type": "function", "function": function }));
    }
    calls::keep_allowed(fields, &mut tools);
    Ok(tools)
}
