//! A conversation as one JSON object, the form in which programs of other languages hand it over.

use serde_json::Value as Json;

use super::ChatRequest;
use crate::error::{Error, Result};
use crate::text::error::TextError;

/// The roles of OpenAI's chat API. A template may drop a message of another role without a word.
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

impl ChatRequest {
    /// The conversation of a JSON object with `messages`, and perhaps the lists `tools` and `documents`, the flags
    /// `thinking` and `clear_thinking`, and `now` in seconds since 1970. The assistant is to go on.
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
    /// [`TextError::Conversation`] for text that is no such object, [`TextError::ChatMessage`] for a message that is no
    /// object with a role of the chat API.
    pub fn from_json(json: &str) -> Result<ChatRequest> {
        let fail = |reason: String| Error::Text(TextError::Conversation { reason });
        let mut value: Json = serde_json::from_str(json).map_err(|error| fail(format!("it is no JSON: {error}")))?;
        let mut list = |key: &str| match value.get_mut(key).map(Json::take) {
            None | Some(Json::Null) => Ok(Vec::new()),
            Some(Json::Array(items)) => Ok(items),
            Some(_) => Err(fail(format!("{key} is no list"))),
        };
        let (messages, tools, documents) = (list("messages")?, list("tools")?, list("documents")?);
        if messages.is_empty() {
            return Err(fail("messages is empty; give at least one message".to_owned()));
        }
        for (index, message) in messages.iter().enumerate() {
            let reason = match message["role"].as_str() {
                Some(role) if ROLES.contains(&role) => continue,
                Some(role) => format!("its role is {role:?}; write {}", ROLES.join(", ")),
                None => format!("it is no object with a role; write {}", ROLES.join(", ")),
            };
            return Err(Error::Text(TextError::ChatMessage { index, reason }));
        }
        Ok(ChatRequest {
            messages,
            tools,
            documents,
            enable_thinking: value["thinking"].as_bool(),
            clear_thinking: value["clear_thinking"].as_bool(),
            add_generation_prompt: true,
            now_unix_s: value["now"].as_i64(),
        })
    }
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
            ("{", "no JSON"),
            ("[]", "messages is empty"),
            (r#"{"messages": []}"#, "messages is empty"),
            (r#"{"messages": {"role": "user"}}"#, "messages is no list"),
            (r#"{"messages": [{"role": "user"}], "tools": 1}"#, "tools is no list"),
            (
                r#"{"messages": [{"role": "user"}, {"role": "robot"}]}"#,
                "message 1 is not usable: its role is \"robot\"",
            ),
            (r#"{"messages": ["hi"]}"#, "message 0 is not usable: it is no object with a role"),
        ] {
            let error = ChatRequest::from_json(json).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
