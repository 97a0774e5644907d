//! The checks before any route: where a request was sent, which page sent it, and its key.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::app::App;
use super::failure::Failure;

/// Routes that need no key.
const OPEN: [&str; 4] = ["/", "/health", "/livez", "/readyz"];

/// The account of a request: the number of its key, or nothing on a server without keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account(pub(crate) String);

/// Lets a request pass or refuses it.
pub(crate) async fn check(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    match account(&app, &request) {
        Ok(account) => {
            request.extensions_mut().insert(account);
            next.run(request).await
        }
        Err(failure) => failure.into_response(),
    }
}

fn account(app: &App, request: &Request) -> Result<Account, Failure> {
    let (settings, headers) = (&app.settings, request.headers());
    // A request line with a full address names the host there.
    let authority = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => header_text(headers, "host").ok_or_else(|| Failure::invalid("the request has no Host header"))?,
    };
    if !settings.allows_host(authority) {
        let message =
            "the Host header names another machine: use 127.0.0.1, or start the server with --allow-host NAME";
        return Err(Failure::forbidden(message));
    }
    if headers.contains_key(header::ORIGIN) {
        let origin = header_text(headers, "origin").unwrap_or_default();
        if !settings.allows_origin(origin, authority) {
            return Err(Failure::forbidden("pages of other origins may not use this server"));
        }
    }
    if settings.keys.is_empty() || OPEN.contains(&request.uri().path()) {
        return Ok(Account::default());
    }
    let bearer = header_text(headers, "authorization").and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    let Some(key) = bearer.or_else(|| header_text(headers, "x-api-key")) else {
        return Err(Failure::unauthenticated("send the key as `Authorization: Bearer KEY` or as `x-api-key: KEY`"));
    };
    match settings.key_number(key) {
        Some(number) => Ok(Account(number.to_string())),
        None => Err(Failure::unauthenticated("the key is wrong")),
    }
}

/// The text of a header; `None` for one that is absent or no ASCII.
pub(crate) fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
