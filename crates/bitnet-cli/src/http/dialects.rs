//! The APIs that clients speak, one file each.

mod calls;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod embeddings;
mod envelope;
pub(crate) mod messages;
pub(crate) mod models;
mod prompts;
pub(crate) mod responses;
mod sampling;
pub(crate) mod state;
pub(crate) mod text;
mod turns;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::Value;

/// A response of JSON.
fn json(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn unix_s() -> u64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_1970.map_or(0, |time| time.as_secs())
}
