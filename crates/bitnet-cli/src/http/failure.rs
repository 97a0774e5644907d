//! The answer to a request that is not done: status, type, sentence, and the two shapes of its body.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use moe_runtime::Refusal;
use serde_json::{Value, json};

use super::ids::Ids;
use crate::output;

/// A request that is not done.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    /// The word for the kind of failure, the same in both vendors' APIs.
    kind: &'static str,
    code: Option<&'static str>,
    pub(crate) message: String,
    /// The field that is to blame.
    param: Option<String>,
    retry_after_s: Option<u64>,
    /// Tokens of the prompt and of the context, where the first are too many.
    context: Option<Box<[usize; 2]>>,
}

/// The vendors whose clients read errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vendor {
    OpenAi,
    Anthropic,
}

impl Vendor {
    /// The vendor of a route.
    pub(crate) fn of_path(path: &str) -> Vendor {
        let path = path.strip_prefix("/v1").unwrap_or(path);
        if path == "/messages" || path.starts_with("/messages/") { Vendor::Anthropic } else { Vendor::OpenAi }
    }
}

impl Failure {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Failure {
        let message = message.into();
        Failure { status, kind, code: None, message, param: None, retry_after_s: None, context: None }
    }

    /// A request that has to change before it can be done.
    pub(crate) fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// As [`Failure::invalid`], about one field.
    pub(crate) fn field(param: impl Into<String>, message: impl Into<String>) -> Failure {
        Failure { param: Some(param.into()), ..Failure::invalid(message) }
    }

    /// A prompt that leaves no room for an answer in the context.
    pub(crate) fn context(prompt: usize, n_ctx: usize) -> Failure {
        let message =
            format!("{prompt} tokens of the prompt do not fit the context of {n_ctx} tokens: shorten the prompt");
        Failure {
            code: Some("context_length_exceeded"),
            context: Some(Box::new([prompt, n_ctx])),
            ..Failure::invalid(message)
        }
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::FORBIDDEN, "permission_error", message)
    }

    pub(crate) fn unauthenticated(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::UNAUTHORIZED, "authentication_error", message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::NOT_FOUND, "not_found_error", message)
    }

    pub(crate) fn wrong_method() -> Failure {
        let message = "this route does not take this method: see /openapi.json";
        Failure::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message)
    }

    pub(crate) fn too_large(limit: usize) -> Failure {
        let message = format!("the body is longer than {limit} bytes: send less, or start the server with --max-body");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    }

    pub(crate) fn slow_body() -> Failure {
        Failure::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "the body did not arrive in time")
    }

    /// The bodies of other requests take all the memory that is meant for large ones.
    pub(crate) fn many_bodies() -> Failure {
        let message = "other large requests are being read: send it again";
        let failure = Failure::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded_error", message);
        Failure { retry_after_s: Some(5), ..failure }
    }

    /// The model is not loaded yet.
    pub(crate) fn loading() -> Failure {
        let failure = Failure::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded_error", "the model is loading");
        Failure { retry_after_s: Some(2), ..failure }
    }

    /// A request that was ended before its answer began, by its time or by the end of the server.
    pub(crate) fn cancelled() -> Failure {
        let message = "the request was ended before its answer began: it took longer than --request-time, or the server \
                       is shutting down; send it again";
        let failure = Failure::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded_error", message);
        Failure { retry_after_s: Some(5), ..failure }
    }

    /// A failure of the model, which a second try would meet again.
    pub(crate) fn broken(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "api_error", message)
    }

    /// The vendor's object about the failure alone.
    pub(crate) fn error(&self, vendor: Vendor) -> Value {
        let Failure { kind, code, message, param, context, .. } = self;
        if vendor == Vendor::Anthropic {
            return json!({ "type": kind, "message": message });
        }
        let mut error = json!({ "message": message, "type": kind, "param": param, "code": code });
        if let Some([prompt, n_ctx]) = context.as_deref() {
            error["n_prompt_tokens"] = (*prompt).into();
            error["n_ctx"] = (*n_ctx).into();
        }
        error
    }

    /// The body of an answer that is this failure.
    pub(crate) fn body(&self, vendor: Vendor, request_id: &str) -> Value {
        let error = self.error(vendor);
        match vendor {
            Vendor::OpenAi => json!({ "error": error }),
            Vendor::Anthropic => json!({ "type": "error", "error": error, "request_id": request_id }),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        let (status, kind, retry_after) = match refusal {
            Refusal::Full { retry_after, .. }
            | Refusal::AccountFull { retry_after, .. }
            | Refusal::AccountTokens { retry_after, .. } => {
                (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", retry_after.as_secs())
            }
            _ => (StatusCode::SERVICE_UNAVAILABLE, "overloaded_error", 5),
        };
        Failure { retry_after_s: Some(retry_after), ..Failure::new(status, kind, refusal.to_string()) }
    }
}

impl From<moe_runtime::Error> for Failure {
    fn from(error: moe_runtime::Error) -> Failure {
        Failure::from(&error)
    }
}

impl From<&moe_runtime::Error> for Failure {
    fn from(error: &moe_runtime::Error) -> Failure {
        use moe_runtime::{Error, SessionError};
        match error {
            Error::Session(SessionError::ContextFull { have, need }) => Failure::context(*need, *have),
            Error::Text(_)
            | Error::Session(
                SessionError::NoTokens
                | SessionError::Token { .. }
                | SessionError::Grammar { .. }
                | SessionError::NothingAllowed,
            ) => Failure::invalid(error.to_string()),
            Error::Session(SessionError::Sampling { setting, .. }) => Failure::field(*setting, error.to_string()),
            _ => {
                // Such a message may name files of this machine, which are no business of a client.
                output::note(format_args!("a request failed: {error}"));
                Failure::broken("the model failed on this request: the output of the server has the reason")
            }
        }
    }
}

impl IntoResponse for Failure {
    /// A response without a body: [`write_bodies`] knows the route and writes it.
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the bodies of failures in the shape of the route's vendor.
pub(crate) async fn write_bodies(request: Request, next: Next) -> Response {
    let vendor = Vendor::of_path(request.uri().path());
    let mut response = next.run(request).await;
    let failure = match response.extensions_mut().remove::<Failure>() {
        Some(failure) => failure,
        None if response.status() == StatusCode::METHOD_NOT_ALLOWED => Failure::wrong_method(),
        None => return response,
    };
    let request_id = Ids::make("req_");
    let (mut parts, _) = response.into_parts();
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = failure.retry_after_s {
        parts.headers.insert(header::RETRY_AFTER, seconds.into());
    }
    if failure.status == StatusCode::UNAUTHORIZED {
        parts.headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if failure.status == StatusCode::INTERNAL_SERVER_ERROR {
        parts.headers.insert("x-should-retry", HeaderValue::from_static("false"));
    }
    Response::from_parts(parts, Body::from(failure.body(vendor, &request_id).to_string()))
}

#[cfg(test)]
mod tests {
    use moe_runtime::{Error, SessionError};

    use super::*;

    #[test]
    fn errors_of_the_model_stay_on_the_server() {
        let failure = Failure::from(Error::Session(SessionError::Logit { token: 7, value: f32::NAN }));
        assert_eq!(failure.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!failure.message.contains("logit"), "{}", failure.message);
    }

    #[test]
    fn a_constraint_without_a_way_on_is_the_clients() {
        let failure = Failure::from(Error::Session(SessionError::NothingAllowed));
        assert_eq!(failure.status, StatusCode::BAD_REQUEST);
        assert!(failure.message.contains("forbids every token"), "{}", failure.message);
    }
}
