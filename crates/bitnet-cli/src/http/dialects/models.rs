//! `/v1/models`: the language model and, where there is one, the sentence encoder, in the words of both vendors.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::json;
use crate::http::app::App;
use crate::http::engine::Facts;
use crate::http::failure::Failure;
use crate::output::Utc;

/// The list of models.
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Response, Failure> {
    let engine = app.engine()?;
    let data: Vec<Value> = engine.models().map(describe).collect();
    let list = json!({
        "object": "list",
        "first_id": data[0]["id"],
        "last_id": data[data.len() - 1]["id"],
        "has_more": false,
        "data": data,
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
    let asked = id.ok().and_then(|Path(id)| engine.models().find(|facts| facts.id == id));
    let known = || engine.models().map(|facts| format!("`{}`", facts.id)).collect::<Vec<_>>().join(" and ");
    let unknown = || Failure::not_found(format!("there is no such model here; there is {}", known()));
    Ok(json(&describe(asked.ok_or_else(unknown)?)))
}

fn describe(facts: &Facts) -> Value {
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
