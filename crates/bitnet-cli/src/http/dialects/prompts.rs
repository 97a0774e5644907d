//! Prompts as clients write them: a text, texts, token ids, or lists of token ids.

use serde_json::Value;

use crate::http::engine::Engine;
use crate::http::failure::Failure;
use crate::http::request::Fields;

/// Most texts of one request.
const MAX_PROMPTS: usize = 2048;

/// A prompt as a client writes it.
#[derive(Debug)]
pub(super) enum Written {
    Text(String),
    Tokens(Vec<u32>),
}

impl Written {
    /// The tokens of the text, without any prefix.
    pub(super) fn tokens(self, engine: &Engine, field: &str) -> Result<Vec<u32>, Failure> {
        let tokens = match self {
            Written::Text(text) => return engine.encode(&text),
            Written::Tokens(tokens) => tokens,
        };
        let vocab = engine.facts.vocab;
        match tokens.iter().find(|&&id| id as usize >= vocab) {
            None => Ok(tokens),
            Some(id) => {
                let message = format!(
                    "`{field}` has token {id}, and the vocabulary of this model {vocab} tokens: these are tokens of \
                     another tokenizer; in LangChain set check_embedding_ctx_length=False"
                );
                Err(Failure::field(field, message))
            }
        }
    }
}

/// Reads the prompts in `field`.
pub(super) fn prompts(fields: Fields<'_>, field: &str) -> Result<Vec<Written>, Failure> {
    let wrong = || Failure::field(field, format!("`{field}` has to be a text, a list of texts, or token ids"));
    let list = match fields.get(field) {
        None => return Err(Failure::field(field, format!("`{field}` is missing"))),
        Some(Value::String(text)) => return Ok(vec![Written::Text(text.clone())]),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(wrong()),
    };
    if list.first().is_some_and(Value::is_number) {
        return Ok(vec![Written::Tokens(ids(list).ok_or_else(wrong)?)]);
    }
    if list.is_empty() || list.len() > MAX_PROMPTS {
        return Err(Failure::field(field, format!("`{field}` has to have 1 to {MAX_PROMPTS} texts")));
    }
    let one = |value: &Value| match value {
        Value::String(text) => Some(Written::Text(text.clone())),
        Value::Array(list) => ids(list).map(Written::Tokens),
        _ => None,
    };
    list.iter().map(|value| one(value).ok_or_else(wrong)).collect()
}

fn ids(list: &[Value]) -> Option<Vec<u32>> {
    list.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
}
