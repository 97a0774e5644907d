//! `/tokenize`, `/detokenize` and `/apply-template`, as llama-server has them.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use moe_runtime::ControlTokens;
use serde_json::{Value, json};

use super::chat;
use super::json;
use crate::http::app::App;
use crate::http::engine::off_thread;
use crate::http::failure::Failure;
use crate::http::request::Asked;

/// The tokens of a text.
pub(crate) async fn tokenize(State(app): State<Arc<App>>, request: Request) -> Result<Response, Failure> {
    let asked = Asked::read(&app, request).await?;
    let fields = asked.fields();
    let Some(content) = fields.text("content")?.map(str::to_owned) else {
        return Err(Failure::field("content", "`content` is missing: send the text"));
    };
    let adds_prefix = fields.flag("add_special")?.unwrap_or(false);
    let parses = fields.flag("parse_special")?.unwrap_or(false);
    let with_pieces = fields.flag("with_pieces")?.unwrap_or(false);
    let tokens: Vec<Value> = off_thread(&asked.engine, move |engine| {
        let mut ids = if adds_prefix { engine.tokenizer.raw_prefix() } else { Vec::new() };
        ids.extend(engine.tokenizer.encode(&content, parses).map_err(|error| Failure::from(&error))?);
        let piece = |id: u32| match std::str::from_utf8(engine.tokenizer.piece(id)) {
            Ok(text) => Value::from(text),
            Err(_) => Value::from(engine.tokenizer.piece(id)),
        };
        let object = |id| if with_pieces { json!({ "id": id, "piece": piece(id) }) } else { Value::from(id) };
        Ok(ids.into_iter().map(object).collect())
    })
    .await?;
    Ok(json(&json!({ "tokens": tokens })))
}

/// The text of tokens, control tokens included.
pub(crate) async fn detokenize(State(app): State<Arc<App>>, request: Request) -> Result<Response, Failure> {
    let asked = Asked::read(&app, request).await?;
    let wrong = || Failure::field("tokens", "`tokens` has to be a list of token ids");
    let list = asked.fields().list("tokens")?.ok_or_else(wrong)?;
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = list.iter().map(id).collect::<Option<Vec<u32>>>().ok_or_else(wrong)?;
    let content = asked.engine.tokenizer.decode(&ids, ControlTokens::Show);
    Ok(json(&json!({ "content": content })))
}

/// The prompt of a conversation, for readers.
pub(crate) async fn apply_template(State(app): State<Arc<App>>, request: Request) -> Result<Response, Failure> {
    let asked = Asked::read(&app, request).await?;
    let conversation = chat::conversation(asked.fields())?;
    let prompt = off_thread(&asked.engine, move |engine| engine.render(&conversation)).await?;
    Ok(json(&json!({ "prompt": prompt.text() })))
}
