//! `/v1/models`: the one model, in the words of both vendors.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::json;
use crate::http::app::App;
use crate::http::engine::Engine;
use crate::http::failure::Failure;
use crate::output::Utc;

/// The list of models.
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Response, Failure> {
    let engine = app.engine()?;
    let id = &engine.facts.id;
    let list = json!({
        "object": "list",
        "data": [describe(engine)],
        "has_more": false,
        "first_id": id,
        "last_id": id,
    });
    Ok(json(&list))
}

/// One model by its id.
pub(crate) async fn one(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Failure> {
    let engine = app.engine()?;
    // An id that is no UTF-8 is none of a model either.
    if id.ok().is_none_or(|Path(id)| id != engine.facts.id) {
        let known = &engine.facts.id;
        return Err(Failure::not_found(format!("there is no such model here; the one there is is called `{known}`")));
    }
    Ok(json(&describe(engine)))
}

fn describe(engine: &Engine) -> Value {
    let facts = &engine.facts;
    json!({
        "id": facts.id,
        "object": "model",
        "created": facts.created_s,
        "owned_by": "local",
        "type": "model",
        "display_name": facts.id,
        "created_at": Utc::from(UNIX_EPOCH + Duration::from_secs(facts.created_s)).to_string(),
        "meta": facts.meta(),
    })
}
