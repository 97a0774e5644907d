//! Brings messages into the one shape that templates expect, before any template sees them.
//!
//! - role `developer` becomes `system` (templates drop roles they do not know, silently);
//! - `content` that is null or absent becomes `""` (Jinja would print `None`);
//! - list content of a tool message becomes its text;
//! - `function.arguments` given as JSON text, as OpenAI sends it, becomes the object it spells.

use serde_json::{Map, Value as Json};

use crate::error::{Error, Result};
use crate::text::error::TextError;

/// All messages in normal form.
///
/// # Errors
/// [`TextError::ChatMessage`] with the message's index and what is wrong with it.
pub(super) fn normalise(messages: &[Json]) -> Result<Vec<Json>> {
    let one = |(index, message): (usize, &Json)| {
        let fail = |reason: String| Error::Text(TextError::ChatMessage { index, reason });
        let object = message.as_object().ok_or_else(|| fail("it is no JSON object".to_owned()))?;
        normalise_one(object).map(Json::Object).map_err(fail)
    };
    messages.iter().enumerate().map(one).collect()
}

fn normalise_one(message: &Map<String, Json>) -> std::result::Result<Map<String, Json>, String> {
    let mut message = message.clone();
    let role = match message.get("role") {
        Some(Json::String(role)) => role.clone(),
        Some(_) => return Err("its `role` is no text".to_owned()),
        None => return Err("it has no `role`".to_owned()),
    };
    if role == "developer" {
        message.insert("role".to_owned(), "system".into());
    }
    let content = match message.get("content") {
        None | Some(Json::Null) => Some(Json::String(String::new())),
        Some(Json::Array(parts)) if role == "tool" => Some(Json::String(flatten(parts)?)),
        Some(_) => None,
    };
    if let Some(content) = content {
        message.insert("content".to_owned(), content);
    }
    if let Some(calls) = message.get_mut("tool_calls") {
        parse_calls(calls)?;
    }
    Ok(message)
}

/// The text of a tool message's parts: strings and `text` parts as they are, anything else as JSON.
fn flatten(parts: &[Json]) -> std::result::Result<String, String> {
    let mut text = String::new();
    for part in parts {
        match (part, part.get("text")) {
            (Json::String(s), _) | (_, Some(Json::String(s))) => text.push_str(s),
            _ => text.push_str(&super::python::write_plain(part)),
        }
    }
    Ok(text)
}

fn parse_calls(calls: &mut Json) -> std::result::Result<(), String> {
    if calls.is_null() {
        return Ok(());
    }
    let calls = calls.as_array_mut().ok_or("its `tool_calls` is no list")?;
    for (index, call) in calls.iter_mut().enumerate() {
        // The arguments sit in `function`, or in the call itself in the short form.
        let holder = match call.get_mut("function") {
            Some(function) => function,
            None => call,
        };
        let Some(arguments) = holder.get_mut("arguments") else {
            continue;
        };
        if let Json::String(text) = arguments {
            *arguments = parse_arguments(text).map_err(|e| format!("the arguments of tool call {index} {e}"))?;
        } else if arguments.is_null() {
            *arguments = Json::Object(Map::new());
        }
        if !arguments.is_object() {
            return Err(format!("the arguments of tool call {index} are no JSON object"));
        }
    }
    Ok(())
}

fn parse_arguments(text: &str) -> std::result::Result<Json, String> {
    if text.trim().is_empty() {
        return Ok(Json::Object(Map::new()));
    }
    serde_json::from_str(text).map_err(|e| format!("are not JSON ({e})"))
}

#[cfg(test)]
mod tests {
    use super::normalise;
    use serde_json::json;

    #[test]
    fn every_rule_applies() {
        let got = normalise(&[
            json!({"role": "developer", "content": "d"}),
            json!({"role": "assistant", "content": null, "tool_calls": [
                {"function": {"name": "f", "arguments": "{\"b\": 1, \"a\": \"x\"}"}},
                {"function": {"name": "g", "arguments": ""}},
                {"name": "h", "arguments": {"k": []}},
                {"name": "i", "arguments": null},
            ]}),
            json!({"role": "tool", "content": [{"type": "text", "text": "one "}, "two ", {"output": 3}]}),
            json!({"role": "user", "content": [{"type": "text", "text": "kept"}]}),
            json!({"role": "assistant", "tool_calls": null}),
        ])
        .unwrap();
        let want = vec![
            json!({"role": "system", "content": "d"}),
            json!({"role": "assistant", "content": "", "tool_calls": [
                {"function": {"name": "f", "arguments": {"b": 1, "a": "x"}}},
                {"function": {"name": "g", "arguments": {}}},
                {"name": "h", "arguments": {"k": []}},
                {"name": "i", "arguments": {}},
            ]}),
            json!({"role": "tool", "content": "one two {\"output\": 3}"}),
            json!({"role": "user", "content": [{"type": "text", "text": "kept"}]}),
            json!({"role": "assistant", "tool_calls": null, "content": ""}),
        ];
        assert_eq!(got, want);
    }

    #[test]
    fn unusable_messages_are_named_by_index() {
        for (message, needle) in [
            (json!("hi"), "no JSON object"),
            (json!({"content": "x"}), "no `role`"),
            (json!({"role": 3}), "no text"),
            (json!({"role": "assistant", "tool_calls": 1}), "no list"),
            (json!({"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}), "not JSON"),
            (json!({"role": "assistant", "tool_calls": [{"function": {"arguments": "[1]"}}]}), "no JSON object"),
        ] {
            let error = normalise(&[json!({"role": "user", "content": ""}), message]).unwrap_err().to_string();
            assert!(error.contains(needle) && error.contains("message 1"), "{error}");
        }
    }
}
