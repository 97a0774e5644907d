//! The fields that objects of OpenAI's completions, with and without a conversation, have in common.

use serde_json::{Value, json};

use super::unix_s;
use crate::http::answer::{Ending, Whole, total_usage};
use crate::http::engine::Engine;
use crate::http::failure::Failure;
use crate::http::ids::Ids;
use crate::http::request::Fields;

/// Where an answer comes from, and whether a stream of it tells the usage.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    id: String,
    created_s: u64,
    model: String,
    fingerprint: String,
    /// Answers to each prompt.
    per_prompt: usize,
    /// Whether a stream ends with a chunk of the usage.
    include_usage: bool,
}

impl Envelope {
    /// The envelope of an answer of this engine, whose id begins with `prefix`.
    pub(super) fn new(
        fields: Fields<'_>,
        engine: &Engine,
        prefix: &str,
        per_prompt: usize,
    ) -> Result<Envelope, Failure> {
        let include_usage = fields.object("stream_options")?.and_then(|options| options.get("include_usage"));
        Ok(Envelope {
            id: Ids::make(prefix),
            created_s: unix_s(),
            model: engine.facts.id.clone(),
            fingerprint: engine.facts.fingerprint(),
            per_prompt,
            include_usage: include_usage == Some(&Value::Bool(true)),
        })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    fn object(&self, object: &str, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created_s,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        })
    }

    /// The answers in one piece.
    pub(super) fn whole(&self, object: &str, choices: Value, answers: &[Whole]) -> Value {
        let mut whole = self.object(object, choices);
        whole["usage"] = self.usage(answers.iter().map(|answer| &answer.ending));
        if let [answer] = answers {
            whole["timings"] = answer.ending.timings();
        }
        whole
    }

    /// A piece of a stream.
    pub(super) fn chunk(&self, object: &str, choices: Value) -> Value {
        let mut chunk = self.object(object, choices);
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// The last piece of a stream, if the request asked for the usage.
    pub(super) fn usage_chunk<'a>(&self, object: &str, endings: impl Iterator<Item = &'a Ending>) -> Option<Value> {
        self.include_usage.then(|| {
            let mut chunk = self.object(object, json!([]));
            chunk["usage"] = self.usage(endings);
            chunk
        })
    }

    fn usage<'a>(&self, endings: impl Iterator<Item = &'a Ending>) -> Value {
        total_usage(endings, self.per_prompt).openai()
    }
}
