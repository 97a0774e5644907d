//! `/v1/messages`, Anthropic's API of conversations.

mod history;
mod request;
mod stream;
mod whole;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::json;

use super::json;
use crate::http::answer::Run;
use crate::http::app::App;
use crate::http::engine::off_thread;
use crate::http::failure::Failure;
use crate::http::request::Asked;
use crate::http::stream::respond;

pub(crate) async fn messages(State(app): State<Arc<App>>, request: Request) -> Result<Response, Failure> {
    let asked = Asked::read(&app, request).await?;
    let (order, shape) = request::read(&app, &asked).await?;
    let run = Run::begin(&app, asked.into_engine(), vec![order])?;
    if shape.stream {
        return Ok(respond(run, stream::BlockWriter::new(shape)));
    }
    let answers = run.collect().await?;
    let answer = answers.first().ok_or_else(|| Failure::broken("there is no answer"))?;
    Ok(json(&whole::message(&shape, answer)))
}

/// Counts the tokens of a conversation.
pub(crate) async fn count_tokens(State(app): State<Arc<App>>, request: Request) -> Result<Response, Failure> {
    let asked = Asked::read(&app, request).await?;
    let conversation = request::conversation(asked.fields(), &asked.engine)?;
    let prompt = off_thread(&asked.engine, move |engine| engine.chat_prompt(&conversation)).await?;
    Ok(json(&json!({ "input_tokens": prompt.tokens.len() })))
}
