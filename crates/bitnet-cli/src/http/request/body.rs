//! The body of a request: JSON, whatever its content type says.

use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::header;
use serde_json::{Map, Value};

use crate::http::failure::Failure;

/// The time that a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(60);

/// Reads a JSON object of at most `limit` bytes.
pub(crate) async fn read_object(request: Request, limit: usize) -> Result<Map<String, Value>, Failure> {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if length.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length > limit as u64) {
        return Err(Failure::too_large(limit));
    }
    let read = tokio::time::timeout(BODY_TIME, to_bytes(request.into_body(), limit)).await;
    let bytes = read.map_err(|_| Failure::slow_body())?.map_err(|error| too_large_or_broken(&error, limit))?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Failure::invalid("the body has to be a JSON object")),
        Err(error) => Err(Failure::invalid(format!("the body is no JSON: {error}"))),
    }
}

fn too_large_or_broken(error: &axum::Error, limit: usize) -> Failure {
    // The limit is the only error that `to_bytes` makes itself; all others come from the connection.
    match error.to_string().contains("length limit") {
        true => Failure::too_large(limit),
        false => Failure::invalid("the body ended early"),
    }
}
