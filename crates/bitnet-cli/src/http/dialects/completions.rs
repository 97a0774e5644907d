//! `/v1/completions`: texts that are continued without a conversation.

mod request;
mod stream;
mod whole;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use super::json;
use crate::http::answer::Run;
use crate::http::app::App;
use crate::http::failure::Failure;
use crate::http::request::Asked;
use crate::http::stream::respond;

pub(crate) async fn completions(State(app): State<Arc<App>>, request: Request) -> Result<Response, Failure> {
    let asked = Asked::read(&app, request).await?;
    let (orders, shape) = request::read(&app, &asked).await?;
    let run = Run::begin(&app, asked.into_engine(), orders)?;
    if shape.stream {
        return Ok(respond(run, stream::ChunkWriter::new(shape)));
    }
    let answers = run.collect().await?;
    Ok(json(&whole::completion(&shape, &answers)))
}
