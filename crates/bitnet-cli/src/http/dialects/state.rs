//! Whether the server lives and is ready, its metrics, slots and settings.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use moe_runtime::{SamplerConfig, SlotStatus};
use serde_json::json;

use super::json;
use crate::http::app::App;
use crate::http::engine::Engine;
use crate::http::failure::Failure;
use crate::http::number::short;

/// `/health` and `/readyz`: 503 while the model is loading, and while the server ends.
pub(crate) async fn health(State(app): State<Arc<App>>) -> Response {
    let message = match app.engine() {
        Err(_) => "Loading model",
        Ok(_) if app.is_draining() => "Shutting down",
        Ok(_) => return json(&json!({ "status": "ok" })),
    };
    let error = json!({ "code": 503, "message": message, "type": "unavailable_error" });
    let mut response = json(&json!({ "error": error }));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    response
}

/// `/livez`: the process answers.
pub(crate) async fn live() -> Response {
    json(&json!({ "status": "ok" }))
}

/// `/metrics`: text for Prometheus.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let status = |engine: &Arc<Engine>| {
        let encoder = engine.encoder.as_ref().map(|encoder| encoder.queue.status());
        [engine.queue.status(), encoder.unwrap_or_default()]
    };
    let queues = app.engine().map(status).unwrap_or_default();
    let mut response = Response::new(Body::from(app.metrics.text(queues)));
    let ty = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, ty);
    response
}

/// `/slots`: the slots as llama-server names their fields, without text.
pub(crate) async fn slots(State(app): State<Arc<App>>) -> Result<Response, Failure> {
    let n_ctx = app.engine()?.facts.n_ctx;
    let slot = |(id, slot): (usize, SlotStatus)| {
        let (prompt, answer) = slot.running.unwrap_or_default();
        json!({
            "id": id,
            "n_ctx": n_ctx,
            "is_processing": slot.running.is_some(),
            "n_held": slot.held_tokens,
            "n_prompt_tokens": prompt,
            "n_decoded": answer,
        })
    };
    Ok(json(&app.slots().into_iter().enumerate().map(slot).collect()))
}

/// `/props`: the settings of answers where a request does not say, as llama-server names them.
pub(crate) async fn props(State(app): State<Arc<App>>) -> Result<Response, Failure> {
    let engine = app.engine()?;
    let SamplerConfig {
        temperature,
        top_p,
        top_k,
        min_p,
        frequency_penalty,
        presence_penalty,
        repetition_penalty,
        seed: _,
    } = engine.sampling;
    let params = json!({
        "temperature": short(temperature),
        "top_p": short(top_p),
        "top_k": top_k,
        "min_p": short(min_p),
        "frequency_penalty": short(frequency_penalty),
        "presence_penalty": short(presence_penalty),
        "repeat_penalty": short(repetition_penalty),
    });
    Ok(json(&json!({
        "default_generation_settings": { "n_ctx": engine.facts.n_ctx, "params": params },
        "total_slots": engine.slots,
        "model_alias": engine.facts.id,
        "modalities": { "vision": false, "audio": false },
        "chat_template": engine.tokenizer.chat_template(),
        "build_info": concat!("bitnet ", env!("CARGO_PKG_VERSION")),
    })))
}
