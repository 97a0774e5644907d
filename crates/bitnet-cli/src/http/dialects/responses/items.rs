//! The items of an output.

use moe_runtime::ToolCall;
use serde_json::{Value, json};

use super::request::Shape;
use super::tools::{Called, FREE_INPUT};

pub(super) fn reasoning(shape: &Shape, id: &str, thought: &str, status: &str) -> Value {
    let mut item = json!({ "id": id, "type": "reasoning", "summary": [], "status": status });
    if status == "in_progress" {
        item["content"] = json!([]);
    } else {
        item["content"] = json!([{ "type": "reasoning_text", "text": thought }]);
        item["encrypted_content"] = shape.seal.close(thought).into();
    }
    item
}

/// A text of the model with the scores of its tokens; an item that has begun has no part yet.
pub(super) fn message(id: &str, text: Option<(&str, &[Value])>, status: &str) -> Value {
    let content = text.map_or_else(|| json!([]), |(text, scores)| json!([output_text(text, scores)]));
    json!({ "id": id, "type": "message", "status": status, "role": "assistant", "content": content })
}

/// A part of a message.
pub(super) fn output_text(text: &str, scores: &[Value]) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": scores })
}

/// A call; an item that has begun has empty arguments.
pub(super) fn call(called: &Called, ids: [&str; 2], arguments: &str, status: &str) -> Value {
    let [id, call_id] = ids;
    match called {
        Called::Custom { name } => json!({
            "id": id, "type": "custom_tool_call", "status": status, "call_id": call_id, "name": name, "input": arguments,
        }),
        Called::Function { name, namespace } => {
            let mut item = json!({
                "id": id, "type": "function_call", "status": status, "call_id": call_id, "name": name,
                "arguments": arguments,
            });
            if let Some(namespace) = namespace {
                item["namespace"] = namespace.as_str().into();
            }
            item
        }
    }
}

/// The arguments of a call as its kind of tool takes them: JSON, or the free text in it.
pub(super) fn arguments(called: &Called, call: &ToolCall) -> String {
    if let Called::Custom { .. } = called {
        let object: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
        return object[FREE_INPUT].as_str().map_or_else(|| call.arguments.clone(), str::to_owned);
    }
    call.arguments.clone()
}
