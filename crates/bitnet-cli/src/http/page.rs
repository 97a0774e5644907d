//! `/`: a page to chat with the model, in one file without outside resources.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;

use super::ids::Ids;

const PAGE: &str = include_str!("page/page.html");

/// The page. Its policy forbids everything but its own script and style, which carry a word of this response, and requests to
/// this server.
pub(crate) async fn page() -> Response {
    let word = Ids::make("");
    let text = ["script", "style"]
        .iter()
        .fold(PAGE.to_owned(), |text, tag| text.replacen(&format!("<{tag}>"), &format!("<{tag} nonce=\"{word}\">"), 1));
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{word}'; style-src 'nonce-{word}'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}
