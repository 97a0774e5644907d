//! `/openapi.json`: the routes and the fields that they act on.

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::{Map, Value, json};

/// Path, method, one line about it, and the fields of the body that it acts on.
type Route = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

const SAMPLING: [(&str, &str); 15] = [
    ("temperature", "number"),
    ("top_p", "number"),
    ("top_k", "integer"),
    ("min_p", "number"),
    ("frequency_penalty", "number"),
    ("presence_penalty", "number"),
    ("repeat_penalty", "number"),
    ("logit_bias", "object"),
    ("seed", "integer"),
    ("stop", "string"),
    ("response_format", "object"),
    ("grammar", "string"),
    ("regex", "string"),
    ("n", "integer"),
    ("stream", "boolean"),
];

const ROUTES: [Route; 20] = [
    (
        "/v1/chat/completions",
        "post",
        "Answer a conversation (OpenAI)",
        &[
            ("messages", "array"),
            ("tools", "array"),
            ("tool_choice", "string"),
            ("max_completion_tokens", "integer"),
            ("max_tokens", "integer"),
            ("stream_options", "object"),
            ("parallel_tool_calls", "boolean"),
            ("logprobs", "boolean"),
            ("top_logprobs", "integer"),
            ("reasoning_effort", "string"),
            ("thinking", "object"),
            ("chat_template_kwargs", "object"),
            ("return_progress", "boolean"),
            ("prompt_cache_key", "string"),
        ],
    ),
    (
        "/v1/completions",
        "post",
        "Continue texts (OpenAI)",
        &[
            ("prompt", "string"),
            ("max_tokens", "integer"),
            ("echo", "boolean"),
            ("logprobs", "integer"),
            ("stream_options", "object"),
            ("suffix", "string"),
            ("best_of", "integer"),
        ],
    ),
    (
        "/v1/responses",
        "post",
        "Answer an input of items (OpenAI)",
        &[
            ("input", "array"),
            ("instructions", "string"),
            ("tools", "array"),
            ("tool_choice", "string"),
            ("parallel_tool_calls", "boolean"),
            ("max_output_tokens", "integer"),
            ("reasoning", "object"),
            ("text", "object"),
            ("temperature", "number"),
            ("top_p", "number"),
            ("top_logprobs", "integer"),
            ("include", "array"),
            ("stream", "boolean"),
            ("prompt_cache_key", "string"),
            ("prompt_cache_options", "object"),
        ],
    ),
    ("/v1/responses/input_tokens", "post", "Count the tokens of an input", &[("input", "array")]),
    (
        "/v1/messages",
        "post",
        "Answer a conversation (Anthropic)",
        &[
            ("messages", "array"),
            ("system", "string"),
            ("max_tokens", "integer"),
            ("tools", "array"),
            ("tool_choice", "object"),
            ("thinking", "object"),
            ("output_config", "object"),
            ("stop_sequences", "array"),
            ("temperature", "number"),
            ("top_p", "number"),
            ("top_k", "integer"),
            ("stream", "boolean"),
            ("diagnostics", "object"),
        ],
    ),
    ("/v1/messages/count_tokens", "post", "Count the tokens of a conversation", &[("messages", "array")]),
    (
        "/v1/embeddings",
        "post",
        "Turn texts into vectors",
        &[("input", "string"), ("model", "string"), ("encoding_format", "string"), ("dimensions", "integer")],
    ),
    ("/v1/models", "get", "List the models", &[]),
    ("/v1/models/{id}", "get", "Describe a model", &[]),
    (
        "/tokenize",
        "post",
        "Tokens of a text",
        &[("content", "string"), ("add_special", "boolean"), ("parse_special", "boolean"), ("with_pieces", "boolean")],
    ),
    ("/detokenize", "post", "Text of tokens", &[("tokens", "array")]),
    ("/apply-template", "post", "Prompt of a conversation", &[("messages", "array"), ("tools", "array")]),
    ("/health", "get", "200 once the model is loaded", &[]),
    ("/readyz", "get", "As /health", &[]),
    ("/livez", "get", "200 while the process answers", &[]),
    ("/metrics", "get", "Counts and times for Prometheus", &[]),
    ("/slots", "get", "The slots, with --debug-endpoints", &[]),
    ("/props", "get", "The settings, with --debug-endpoints", &[]),
    ("/openapi.json", "get", "This description", &[]),
    ("/", "get", "A page to chat with the model", &[]),
];

/// Routes that choose tokens by the fields of [`SAMPLING`].
const SAMPLED: [&str; 2] = ["/v1/chat/completions", "/v1/completions"];

static DESCRIPTION: LazyLock<String> = LazyLock::new(|| {
    let mut paths = Map::new();
    for route in &ROUTES {
        paths.insert(route.0.to_owned(), json!({ route.1: operation(route) }));
    }
    let info = json!({ "title": "bitnet serve", "version": env!("CARGO_PKG_VERSION") });
    let schemes = json!({ "key": { "type": "http", "scheme": "bearer" } });
    let components = json!({ "securitySchemes": schemes });
    json!({ "openapi": "3.1.0", "info": info, "paths": paths, "components": components }).to_string()
});

/// The fields that a route reads; `None` for one without a body. Routes that count tokens and show prompts read the fields of
/// the route that answers.
pub(super) fn fields_of(route: &str) -> Option<Vec<&'static str>> {
    let path = match route.strip_prefix("/v1").unwrap_or(route) {
        "/responses/input_tokens" => "/responses",
        "/messages/count_tokens" => "/messages",
        "/apply-template" => "/chat/completions",
        path => path,
    };
    let is_same = |known: &str| known.strip_prefix("/v1").unwrap_or(known) == path;
    let (path, _, _, fields) = ROUTES.iter().find(|(known, method, ..)| *method == "post" && is_same(known))?;
    Some(all_fields(path, fields).map(|(name, _)| *name).collect())
}

fn all_fields(
    path: &str,
    own: &'static [(&'static str, &'static str)],
) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    let sampling: &[(&str, &str)] = if SAMPLED.contains(&path) { &SAMPLING } else { &[] };
    own.iter().chain(sampling)
}

fn operation((path, _, summary, fields): &Route) -> Value {
    let all = all_fields(path, fields);
    let properties: Map<String, Value> = all.map(|(name, ty)| ((*name).to_owned(), property(name, ty))).collect();
    let mut operation = json!({ "summary": summary, "responses": { "200": { "description": "Done" } } });
    if !properties.is_empty() {
        let schema = json!({ "type": "object", "properties": properties, "additionalProperties": true });
        operation["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    if path.contains("{id}") {
        let id = json!({ "name": "id", "in": "path", "required": true, "schema": { "type": "string" } });
        operation["parameters"] = json!([id]);
    }
    operation
}

/// The schema of a field. Some take a text as well as a list.
fn property(name: &str, ty: &str) -> Value {
    match name {
        "prompt" | "input" | "system" | "stop" | "tool_choice" if ty != "object" => {
            json!({ "type": ["string", "array", "object"] })
        }
        _ => json!({ "type": ty }),
    }
}

pub(crate) async fn openapi() -> Response {
    let mut response = Response::new(Body::from(DESCRIPTION.as_str()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
