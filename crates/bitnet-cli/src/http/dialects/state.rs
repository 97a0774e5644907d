//! Whether the server lives and is ready, and its metrics.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::json;

use super::json;
use crate::http::app::App;
use crate::http::engine::Engine;

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
