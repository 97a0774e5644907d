//! A conversation as one JSON object, the form in which programs of other languages hand it over.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use super::ChatRequest;
use super::message::text_of;
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
    /// [`TextError::ChatMessage`] for a message that is no object with a role of the chat API, or whose content is
    /// there and no text.
    pub fn from_json(json: &str) -> Result<ChatRequest> {
        let mut fields: Map<String, Json> =
            serde_json::from_str(json).map_err(|error| unusable(format!("it is no JSON object: {error}")))?;
        let request = ChatRequest {
            messages: take(&mut fields, "messages", "a list")?.unwrap_or_default(),
            tools: take(&mut fields, "tools", "a list")?.unwrap_or_default(),
            documents: take(&mut fields, "documents", "a list")?.unwrap_or_default(),
            enable_thinking: take(&mut fields, "thinking", "true or false")?,
            clear_thinking: take(&mut fields, "clear_thinking", "true or false")?,
            add_generation_prompt: true,
            now_unix_s: take(&mut fields, "now", "a whole number")?,
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
                (MessageDefect::Role, Some(role)) => format!("its role {role:?} {}", defect.problem()),
                (MessageDefect::Role, None) => format!("it is no object with a role, which {}", defect.problem()),
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
    pub(crate) fn problem(self) -> String {
        match self {
            MessageDefect::Role => format!("has to be one of {}", ChatRequest::ROLES.join(", ")),
            MessageDefect::Content => "has to be a text or a list of parts of type text".to_owned(),
        }
    }
}

/// Refuses a message that the template would leave out, and one whose content is neither text nor rendered as one.
pub(crate) fn check_message(message: &Json) -> std::result::Result<(), MessageDefect> {
    if !message["role"].as_str().is_some_and(|role| ChatRequest::ROLES.contains(&role)) {
        return Err(MessageDefect::Role);
    }
    match &message["content"] {
        Json::Null | Json::String(_) => Ok(()),
        // The parts of a tool's result that are no texts become texts.
        Json::Array(parts) if message["role"] == "tool" || parts.iter().all(|part| text_of(part).is_some()) => Ok(()),
        _ => Err(MessageDefect::Content),
    }
}

/// Removes a field that has to be `kind`; `None` where it is absent or null.
fn take<T: DeserializeOwned>(fields: &mut Map<String, Json>, name: &str, kind: &str) -> Result<Option<T>> {
    match fields.remove(name) {
        None | Some(Json::Null) => Ok(None),
        Some(value) => {
            serde_json::from_value(value).map(Some).map_err(|_| unusable(format!("{name} has to be {kind}")))
        }
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
    fn contents_of_every_form_that_becomes_text_are_taken() {
        for message in [
            r#"{"role": "user", "content": ["hi", {"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]}"#,
            r#"{"role": "assistant", "content": [{"type": "output_text", "text": "a"}]}"#,
            r#"{"role": "tool", "content": [{"output": 3}, "x"]}"#,
        ] {
            let json = format!("{{\"messages\": [{message}]}}");
            assert_eq!(ChatRequest::from_json(&json).unwrap().messages.len(), 1, "{message}");
        }
    }

    #[test]
    fn other_values_are_refused_by_name() {
        for (json, named) in [
            ("{", "no JSON object"),
            ("[]", "no JSON object"),
            ("{}", "messages is empty"),
            (r#"{"messages": []}"#, "messages is empty"),
            (r#"{"messages": {"role": "user"}}"#, "messages has to be a list"),
            (r#"{"messages": [{"role": "user"}], "tools": 1}"#, "tools has to be a list"),
            (r#"{"messages": [{"role": "user"}], "thinking": "false"}"#, "thinking has to be true or false"),
            (r#"{"messages": [{"role": "user"}], "clear_thinking": 1}"#, "clear_thinking has to be true or false"),
            (r#"{"messages": [{"role": "user"}], "now": 1.5}"#, "now has to be a whole number"),
            (r#"{"messages": [{"role": "user"}], "enable_thinking": false}"#, "no field \"enable_thinking\""),
            (
                r#"{"messages": [{"role": "user"}, {"role": "robot"}]}"#,
                "message 1 is not usable: its role \"robot\" has to be one of system",
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
