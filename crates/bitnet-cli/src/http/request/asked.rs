//! A request with a JSON body for a loaded model.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::HeaderMap;
use moe_runtime::Priority;
use serde_json::{Map, Value};
use tokio::sync::OwnedSemaphorePermit;

use super::body::{Object, read_object};
use super::fields::Fields;
use crate::http::access::{Account, header_text};
use crate::http::answer::Caller;
use crate::http::app::App;
use crate::http::engine::Engine;
use crate::http::failure::Failure;
use crate::http::tally::Tally;

/// Headers that name the session of a client, the most telling first.
const SESSION_HEADERS: [&str; 3] = ["x-session-affinity", "x-claude-code-session-id", "session-id"];
/// Longest key of a session; longer ones are cut.
const MAX_KEY_BYTES: usize = 256;

/// The body, the sender and the model.
pub(crate) struct Asked {
    pub(crate) engine: Arc<Engine>,
    body: Map<String, Value>,
    headers: HeaderMap,
    account: String,
    tally: Option<Arc<Tally>>,
    /// The share of a large body in the memory for them.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Asked {
    /// Reads the body of `request`.
    ///
    /// # Errors
    /// A model that is not loaded yet; a body that is too long or no JSON object.
    pub(crate) async fn read(app: &App, request: Request) -> Result<Asked, Failure> {
        let engine = app.engine()?.clone();
        let headers = request.headers().clone();
        let account = request.extensions().get::<Account>().cloned().unwrap_or_default().0;
        let tally = request.extensions().get::<Arc<Tally>>().cloned();
        let Object { fields: body, permit } =
            read_object(request, app.settings.max_body_bytes, &app.large_bodies).await?;
        if let Some(tally) = &tally {
            app.ignored.note(tally.route(), body.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| &**name));
        }
        Ok(Asked { engine, body, headers, account, tally, _permit: permit })
    }

    /// The model alone: the body is dropped, and with it its share of the memory for large bodies.
    pub(crate) fn into_engine(self) -> Arc<Engine> {
        self.engine
    }

    /// The fields of the body.
    pub(crate) fn fields(&self) -> Fields<'_> {
        Fields::new(&self.body)
    }

    /// The sender: the account of its key, and the key of its session.
    pub(crate) fn caller(&self) -> Caller {
        let from_body = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let affinity = from_body(self.body.get("prompt_cache_key"))
            .or_else(|| SESSION_HEADERS.iter().find_map(|name| header_text(&self.headers, name)).map(str::to_owned))
            .or_else(|| from_body(self.body.get("metadata").and_then(|metadata| metadata.get("user_id"))))
            .or_else(|| from_body(self.body.get("user")))
            .unwrap_or_default();
        let is_batch =
            header_text(&self.headers, "x-priority").is_some_and(|value| value.eq_ignore_ascii_case("batch"));
        Caller {
            account: self.account.clone(),
            affinity: cut(affinity),
            priority: if is_batch { Priority::Batch } else { Priority::Interactive },
            tally: self.tally.clone(),
        }
    }
}

fn cut(mut key: String) -> String {
    let mut end = key.len().min(MAX_KEY_BYTES);
    while !key.is_char_boundary(end) {
        end -= 1;
    }
    key.truncate(end);
    key
}
