//! The body of a request: JSON, whatever its content type says.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::http::header;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::failure::Failure;

/// Bytes above which a body needs a permit.
const LARGE_BYTES: u64 = 1 << 20;
/// The time that a body may take to arrive, and that a large one may wait for its permit.
const BODY_TIME: Duration = Duration::from_secs(60);

/// The JSON object of a request.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) fields: Map<String, Value>,
    /// Of a large body, until its fields are dropped.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// Reads a JSON object of at most `limit` bytes. A body that is large, or does not tell its length, takes one of the
/// permits of `large` first.
///
/// # Errors
/// A body that is too long, too slow or no JSON object, and a large one that gets no permit.
pub(crate) async fn read_object(request: Request, limit: usize, large: &Arc<Semaphore>) -> Result<Object, Failure> {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let length = length.and_then(|length| length.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit as u64) {
        return Err(Failure::too_large(limit));
    }
    let permit = match length {
        Some(..=LARGE_BYTES) => None,
        _ => {
            let waited = tokio::time::timeout(BODY_TIME, large.clone().acquire_owned()).await;
            Some(waited.ok().and_then(Result::ok).ok_or_else(Failure::many_bodies)?)
        }
    };
    let read = tokio::time::timeout(BODY_TIME, to_bytes(request.into_body(), limit)).await;
    let bytes = read.map_err(|_| Failure::slow_body())?.map_err(|error| too_large_or_broken(&error, limit))?;
    let parsed = tokio::task::spawn_blocking(move || parse(&bytes)).await;
    let fields = parsed.map_err(|_| Failure::broken("the request could not be read: please report it"))??;
    Ok(Object { fields, permit })
}

fn parse(bytes: &Bytes) -> Result<Map<String, Value>, Failure> {
    match serde_json::from_slice(bytes) {
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

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn large_bodies_hold_a_permit_until_they_are_dropped() {
        let large = Arc::new(Semaphore::new(1));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let read = |length: Option<usize>, body: &str| {
            let mut request = Request::new(Body::from(body.to_owned()));
            if let Some(length) = length {
                request.headers_mut().insert(header::CONTENT_LENGTH, length.into());
            }
            runtime.block_on(read_object(request, 4 << 20, &large)).unwrap()
        };
        let long = format!("{{\"text\": \"{}\"}}", "a".repeat(2 << 20));
        for (length, body) in [(Some(long.len()), long.as_str()), (None, "{}")] {
            let object = read(length, body);
            assert_eq!(large.available_permits(), 0, "{length:?}");
            drop(object);
            assert_eq!(large.available_permits(), 1);
        }
        let small = read(Some(10), "{\"a\": [1]}");
        assert_eq!((large.available_permits(), small.fields["a"][0].as_u64()), (1, Some(1)));
    }
}
