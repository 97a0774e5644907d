//! From paths to handlers. Every path of an API exists with and without `/v1`.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use tower_http::catch_panic::CatchPanicLayer;

use super::access;
use super::app::App;
use super::dialects::{chat, completions, embeddings, messages, models, responses, state, text};
use super::failure::{Failure, write_bodies};
use super::tally::Tally;
use super::{openapi, page};

/// The service of all connections.
pub(super) fn routes(app: &Arc<App>) -> Router {
    let apis: [(&str, MethodRouter<Arc<App>>); 13] = [
        ("/chat/completions", post(chat::chat)),
        ("/completions", post(completions::completions)),
        ("/responses", post(responses::responses)),
        ("/responses/input_tokens", post(responses::input_tokens)),
        ("/responses/{id}", get(responses::kept).delete(responses::kept)),
        ("/messages", post(messages::messages)),
        ("/messages/count_tokens", post(messages::count_tokens)),
        ("/embeddings", post(embeddings::embeddings)),
        ("/tokenize", post(text::tokenize)),
        ("/detokenize", post(text::detokenize)),
        ("/apply-template", post(text::apply_template)),
        ("/models", get(models::list)),
        ("/models/{id}", get(models::one)),
    ];
    let mut router = Router::new()
        .route("/health", get(state::health))
        .route("/readyz", get(state::health))
        .route("/livez", get(state::live))
        .route("/metrics", get(state::metrics))
        .route("/openapi.json", get(openapi::openapi))
        .route("/", get(page::page));
    if app.settings.debug_endpoints {
        router = router.route("/slots", get(state::slots)).route("/props", get(state::props));
    }
    for (path, handler) in apis {
        router = router.route(path, handler.clone()).route(&format!("/v1{path}"), handler);
    }
    router
        .fallback(|| async { Failure::not_found("there is no such route: see /openapi.json") })
        .layer(from_fn_with_state(app.clone(), access::check))
        .layer(CatchPanicLayer::custom(|_| {
            Failure::broken("the server met a defect of its own: please report it").into_response()
        }))
        .layer(from_fn(write_bodies))
        .layer(from_fn_with_state(app.clone(), count))
        .with_state(app.clone())
}

/// Counts the response under the pattern of its route, never under the path that the client wrote.
async fn count(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str);
    let tally = Arc::new(Tally::new(app.metrics.clone(), route));
    request.extensions_mut().insert(tally.clone());
    let response = next.run(request).await;
    tally.responds(response.status().as_u16());
    response
}
