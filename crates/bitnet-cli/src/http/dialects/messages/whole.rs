//! The answer in one piece.

use serde_json::{Value, json};

use super::request::Shape;
use crate::http::answer::{Ending, Finish, Usage, Whole};
use crate::http::ids::Ids;

pub(super) fn message(shape: &Shape, answer: &Whole) -> Value {
    let output = &answer.output;
    let mut content = Vec::new();
    if !output.reasoning.is_empty() {
        let signature = shape.seal.close(&output.reasoning);
        content.push(json!({ "type": "thinking", "thinking": output.reasoning, "signature": signature }));
    }
    if !output.content.is_empty() {
        content.push(json!({ "type": "text", "text": output.content }));
    }
    for call in &output.calls {
        let input: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
        content.push(json!({ "type": "tool_use", "id": Ids::make("toolu_"), "name": call.name, "input": input }));
    }
    let Ending { finish, usage, .. } = &answer.ending;
    json!({
        "id": shape.id,
        "type": "message",
        "role": "assistant",
        "model": shape.model,
        "content": content,
        "stop_reason": finish.anthropic(),
        "stop_sequence": stop_sequence(finish),
        "usage": usage_of(usage),
        "diagnostics": shape.divergence.anthropic(),
    })
}

/// The stop string of the request that ended the answer.
pub(super) fn stop_sequence(finish: &Finish) -> Option<&str> {
    match finish {
        Finish::StopString(text) => Some(text),
        _ => None,
    }
}

/// Tokens of the prompt without those that were cached, and the cached ones apart.
pub(super) fn usage_of(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt - usage.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.answer,
    })
}
