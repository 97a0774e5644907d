//! A conversation as one JSON object, the form in which programs of other languages hand it over.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use super::ChatRequest;
use crate::error::{Error, Result};
use crate::text::error::TextError;

impl ChatRequest {
    /// The roles of OpenAI's chat API. A template may drop a message of another role without a word.
    pub const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

    /// The conversation of a JSON object with `messages`, and perhaps the lists `tools` and `documents`, the flags
    /// `thinking` and `clear_thinking`, and `now` in seconds since 1970. The assistant is to go on. A field that is null counts
    /// as absent.
    ///
    /// ```
    /// use moe_runtime::ChatRequest;
    /// let request = ChatRequest::from_json(r#"{"messages": [{"role": "user", "content": "hi"}], "thinking": false}"#)?;
    /// assert_eq!(request.enable_thinking, Some(false));
    /// assert!(ChatRequest::from_json(r#"{"messages": [{"role": "robot", "content": "hi"}]}"#).is_err());
    /// # Ok::<(), moe_runtime::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`TextError::Conversation`] for text that is no such object, or has a field of another type or another name;
    /// [`TextError::ChatMessage`] for a message that is no object with a role of the chat API and a content of text.
    pub fn from_json(json: &str) -> Result<ChatRequest> {
        let mut fields: Map<String, Json> =
            serde_json::from_str(json).map_err(|error| unusable(format!("it is no JSON object: {error}")))?;
        let request = ChatRequest {
            messages: take(&mut fields, "messages", "list")?.unwrap_or_default(),
            tools: take(&mut fields, "tools", "list")?.unwrap_or_default(),
            documents: take(&mut fields, "documents", "list")?.unwrap_or_default(),
            enable_thinking: take(&mut fields, "thinking", "true or false")?,
            clear_thinking: take(&mut fields, "clear_thinking", "true or false")?,
            add_generation_prompt: true,
            now_unix_s: take(&mut fields, "now", "whole number")?,
        };
        if let Some(name) = fields.keys().next() {
            let known = "messages, tools, documents, thinking, clear_thinking, now";
            return Err(unusable(format!("it has no field {name:?}; its fields are {known}")));
        }
        if request.messages.is_empty() {
            return Err(unusable("messages is empty; give at least one message".to_owned()));
        }
        for (index, message) in request.messages.iter().enumerate() {
            let Err(defect) = check_message(message) else { continue };
            let reason = match (defect, message["role"].as_str()) {
                (MessageDefect::Role, Some(role)) => format!("its role is {role:?}; write {}", Self::ROLES.join(", ")),
                (MessageDefect::Role, None) => {
                    format!("it is no object with a role; write {}", Self::ROLES.join(", "))
                }
                (MessageDefect::Content, _) => format!("its content {}", defect.problem()),
            };
            return Err(Error::Text(TextError::ChatMessage { index, reason }));
        }
        Ok(request)
    }
}

/// The field of a message that no template renders as it is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageDefect {
    Role,
    Content,
}

impl MessageDefect {
    /// The name of the field.
    pub(crate) fn field(self) -> &'static str {
        match self {
            MessageDefect::Role => "role",
            MessageDefect::Content => "content",
        }
    }

    /// The end of a sentence that begins with the field.
    pub(crate) fn problem(self) -> &'static str {
        match self {
            MessageDefect::Role => "has to be system, developer, user, assistant or tool",
            MessageDefect::Content => "has to be a text or a list of parts of type text",
        }
    }
}

/// Refuses a message that the template would leave out or print as JSON.
pub(crate) fn check_message(message: &Json) -> std::result::Result<(), MessageDefect> {
    if !message["role"].as_str().is_some_and(|role| ChatRequest::ROLES.contains(&role)) {
        return Err(MessageDefect::Role);
    }
    let is_text = |part: &Json| part["type"] == "text" && part["text"].is_string();
    match &message["content"] {
        Json::Null | Json::String(_) => Ok(()),
        Json::Array(parts) if parts.iter().all(is_text) => Ok(()),
        _ => Err(MessageDefect::Content),
    }
}

/// Removes a field that has to be a `kind`; `None` where it is absent or null.
fn take<T: DeserializeOwned>(fields: &mut Map<String, Json>, name: &str, kind: &str) -> Result<Option<T>> {
    match fields.remove(name) {
        None | Some(Json::Null) => Ok(None),
        Some(value) => serde_json::from_value(value).map(Some).map_err(|_| unusable(format!("{name} is no {kind}"))),
    }
}

fn unusable(reason: String) -> Error {
    Error::Text(TextError::Conversation { reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_has_its_lists_and_flags() {
        let json = r#"{"messages": [{"role": "developer", "content": "a"}, {"role": "tool", "content": "b"}],
            "tools": [{"type": "function"}], "documents": null, "clear_thinking": true, "now": 5}"#;
        let request = ChatRequest::from_json(json).unwrap();
        assert_eq!((request.messages.len(), request.tools.len(), request.documents.len()), (2, 1, 0));
        assert_eq!((request.enable_thinking, request.clear_thinking), (None, Some(true)));
        assert!(request.add_generation_prompt && request.now_unix_s == Some(5));
    }

    #[test]
    fn other_values_are_refused_by_name() {
        for (json, named) in [
            ("{", "no JSON object"),
            ("[]", "no JSON object"),
            ("{}", "messages is empty"),
            (r#"{"messages": []}"#, "messages is empty"),
            (r#"{"messages": {"role": "user"}}"#, "messages is no list"),
            (r#"{"messages": [{"role": "user"}], "tools": 1}"#, "tools is no list"),
            (r#"{"messages": [{"role": "user"}], "thinking": "false"}"#, "thinking is no true or false"),
            (r#"{"messages": [{"role": "user"}], "clear_thinking": 1}"#, "clear_thinking is no true or false"),
            (r#"{"messages": [{"role": "user"}], "now": 1.5}"#, "now is no whole number"),
            (r#"{"messages": [{"role": "user"}], "enable_thinking": false}"#, "no field \"enable_thinking\""),
            (
                r#"{"messages": [{"role": "user"}, {"role": "robot"}]}"#,
                "message 1 is not usable: its role is \"robot\"",
            ),
            (r#"{"messages": ["hi"]}"#, "message 0 is not usable: it is no object with a role"),
            (
                r#"{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}"#,
                "message 0 is not usable: its content has to be a text",
            ),
        ] {
            let error = ChatRequest::from_json(json).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
