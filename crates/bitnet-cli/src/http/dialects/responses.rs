//! `/v1/responses`, OpenAI's API of items. Answers are not kept: clients send the whole input with every request.

mod history;
mod items;
mod object;
mod request;
mod stream;
mod tools;

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

pub(crate) async fn responses(State(app): State<Arc<App>>, request: Request) -> Result<Response, Failure> {
    let asked = Asked::read(&app, request).await?;
    let (order, shape) = request::read(&app, &asked).await?;
    let run = Run::begin(&app, asked.into_engine(), vec![order])?;
    if shape.stream {
        return Ok(respond(run, stream::ItemWriter::new(shape)));
    }
    let answers = run.collect().await?;
    let answer = answers.first().ok_or_else(|| Failure::broken("there is no answer"))?;
    Ok(json(&object::whole(&shape, answer)))
}

/// Counts the tokens of an input.
pub(crate) async fn input_tokens(State(app): State<Arc<App>>, request: Request) -> Result<Response, Failure> {
    let asked = Asked::read(&app, request).await?;
    let (conversation, _) = request::conversation(asked.fields(), &asked.engine)?;
    let prompt = off_thread(&asked.engine, move |engine| engine.chat_prompt(&conversation)).await?;
    Ok(json(&json!({ "object": "response.input_tokens", "input_tokens": prompt.tokens.len() })))
}

/// No answer is kept, so none is found.
pub(crate) async fn kept() -> Failure {
    Failure::not_found("answers are not kept here: send the whole input with every request")
}
