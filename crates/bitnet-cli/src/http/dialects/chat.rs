//! `/v1/chat/completions`, OpenAI's API of conversations.

mod request;
mod stream;
mod whole;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::response::Response;

pub(super) use request::conversation;

use super::json;
use crate::http::answer::{Run, Whole};
use crate::http::app::App;
use crate::http::failure::Failure;
use crate::http::request::Asked;
use crate::http::stream::respond;

pub(crate) async fn chat(State(app): State<Arc<App>>, request: Request) -> Result<Response, Failure> {
    let asked = Asked::read(&app, request).await?;
    let (orders, shape) = request::read(&app, &asked).await?;
    let run = Run::begin(&app, asked.into_engine(), orders)?;
    if shape.stream {
        return Ok(respond(run, stream::ChunkWriter::new(shape)));
    }
    let answers = run.collect().await?;
    Ok(with_cached(json(&whole::completion(&shape, &answers)), &answers))
}

/// The response with the header `x-cache`: tokens of the prompt that were cached, and those that were computed and why. The headers
/// of a stream are sent before the prompt is read, so that it has a comment of these words before its first chunk.
fn with_cached(mut response: Response, answers: &[Whole]) -> Response {
    let Some(text) = answers.first().map(|answer| answer.ending.cache()) else { return response };
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().insert("x-cache", value);
    }
    response
}
