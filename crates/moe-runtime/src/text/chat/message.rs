//! Brings messages into the one shape that templates expect, before any template sees them.
//!
//! - role `developer` becomes `system` (templates drop roles they do not know, silently); it may stand anywhere;
//! - `content` that is null or absent becomes `""` (Jinja would print `None`);
//! - `content` that is a list of texts becomes their text, so that blocks and plain text give the same tokens; so does
//!   every list in a tool message;
//! - `reasoning` becomes `reasoning_content` where that is absent: clients return thoughts under either name;
//! - `function.arguments` given as JSON text, as OpenAI sends it, becomes the object it spells. Text that spells none
//!   becomes the one argument `arguments`, and a call without arguments has none: an agent repeats its history with
//!   every request, so a refusal would end it.

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
        Some(Json::Array(parts)) => parts.iter().map(text_of).collect::<Option<String>>().map(Json::String),
        Some(_) => None,
    };
    if let Some(content) = content {
        message.insert("content".to_owned(), content);
    }
    if message.get("reasoning_content").is_none_or(Json::is_null)
        && let Some(reasoning @ Json::String(_)) = message.get("reasoning").cloned()
    {
        message.insert("reasoning_content".to_owned(), reasoning);
    }
    if let Some(calls) = message.get_mut("tool_calls") {
        parse_calls(calls)?;
    }
    Ok(message)
}

/// The text of a part that is text, as the APIs spell it.
pub(super) fn text_of(part: &Json) -> Option<&str> {
    match part {
        Json::String(text) => Some(text),
        _ => match part.get("type")?.as_str()? {
            "text" | "input_text" | "output_text" => part.get("text")?.as_str(),
            _ => None,
        },
    }
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
    for call in calls {
        // The arguments sit in `function`, or in the call itself in the short form.
        let has_function = call.get("function").is_some_and(Json::is_object);
        let holder = if has_function { call.get_mut("function") } else { Some(call) };
        if let Some(holder) = holder.and_then(Json::as_object_mut) {
            let arguments = holder.get_mut("arguments").map(std::mem::take).unwrap_or_default();
            holder.insert("arguments".to_owned(), Json::Object(arguments_of(arguments)));
        }
    }
    Ok(())
}

/// The arguments as an object, whatever a client made of them.
fn arguments_of(arguments: Json) -> Map<String, Json> {
    let text = match arguments {
        Json::Object(arguments) => return arguments,
        Json::Null => return Map::new(),
        Json::String(text) if text.trim().is_empty() => return Map::new(),
        Json::String(text) => match serde_json::from_str(&text) {
            Ok(Json::Object(arguments)) => return arguments,
            _ => text,
        },
        other => other.to_string(),
    };
    Map::from_iter([("arguments".to_owned(), Json::String(text))])
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
                {"function": {"name": "j"}},
                {"name": "k", "function": null},
                "l",
            ]}),
            json!({"role": "tool", "content": [{"type": "text", "text": "one "}, "two ", {"output": 3}]}),
            json!({"role": "user", "content": [{"type": "text", "text": "a "}, "b ", {"type": "input_text", "text": "c"}]}),
            json!({"role": "user", "content": [{"type": "text", "text": "kept"}, {"type": "image_url"}]}),
            json!({"role": "assistant", "tool_calls": null}),
            json!({"role": "assistant", "content": "x", "reasoning": "r"}),
            json!({"role": "assistant", "content": "x", "reasoning": "r", "reasoning_content": "c"}),
        ])
        .unwrap();
        let want = vec![
            json!({"role": "system", "content": "d"}),
            json!({"role": "assistant", "content": "", "tool_calls": [
                {"function": {"name": "f", "arguments": {"b": 1, "a": "x"}}},
                {"function": {"name": "g", "arguments": {}}},
                {"name": "h", "arguments": {"k": []}},
                {"name": "i", "arguments": {}},
                {"function": {"name": "j", "arguments": {}}},
                {"name": "k", "function": null, "arguments": {}},
                "l",
            ]}),
            json!({"role": "tool", "content": "one two {\"output\": 3}"}),
            json!({"role": "user", "content": "a b c"}),
            json!({"role": "user", "content": [{"type": "text", "text": "kept"}, {"type": "image_url"}]}),
            json!({"role": "assistant", "tool_calls": null, "content": ""}),
            json!({"role": "assistant", "content": "x", "reasoning": "r", "reasoning_content": "r"}),
            json!({"role": "assistant", "content": "x", "reasoning": "r", "reasoning_content": "c"}),
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
        ] {
            let error = normalise(&[json!({"role": "user", "content": ""}), message]).unwrap_err().to_string();
            assert!(error.contains(needle) && error.contains("message 1"), "{error}");
        }
    }

    #[test]
    fn arguments_that_are_no_object_are_kept_as_text() {
        let deep = "[".repeat(1000);
        for (arguments, text) in
            [(json!("{\"a\": "), "{\"a\": "), (json!("[1]"), "[1]"), (json!([1]), "[1]"), (json!(deep), deep.as_str())]
        {
            let message =
                json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]});
            let got = normalise(&[message]).unwrap();
            assert_eq!(got[0]["tool_calls"][0]["function"]["arguments"], json!({"arguments": text}));
        }
    }
}
