//! One line of a batch as a request. The fields are those of OpenAI's APIs: `prompt` is continued as in completions,
//! `messages` are answered as in chats.

use serde::Deserialize;
use serde_json::{Number, Value};

use super::error::BatchError;
use crate::sessions::sampler::{SamplerChoice, SamplerConfig};
use crate::text::chat::{ChatRequest, check_message};

/// The fields of a line. One that is null counts as absent; one that is not listed here is refused, because a misspelt
/// setting would otherwise change nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchRequest {
    id: Option<Value>,
    pub(super) prompt: Option<String>,
    messages: Option<Vec<Value>>,
    pub(super) tools: Option<Vec<Value>>,
    chat_template_kwargs: Option<TemplateFlags>,
    pub(super) max_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    min_p: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    repeat_penalty: Option<f32>,
    seed: Option<Number>,
    stop: Option<Stops>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TemplateFlags {
    enable_thinking: Option<bool>,
    clear_thinking: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Stops {
    One(String),
    Many(Vec<String>),
}

impl BatchRequest {
    /// Reads a line. The id, where the line has one that can be read, comes back beside a refusal too.
    pub(super) fn read(line: &str) -> (Option<Value>, Result<BatchRequest, BatchError>) {
        let value: Value = match serde_json::from_str(line) {
            Ok(value) => value,
            Err(error) => return (None, Err(BatchError::Json { reason: without_place(&error) })),
        };
        let id = value.get("id").filter(|id| id.is_string() || id.is_number()).cloned();
        let request = serde_json::from_value(value).map_err(|error| BatchError::Json { reason: without_place(&error) });
        (id, request.and_then(BatchRequest::checked))
    }

    fn checked(self) -> Result<BatchRequest, BatchError> {
        if self.id.as_ref().is_some_and(|id| !id.is_string() && !id.is_number()) {
            return Err(field("id", "has to be a text or a number"));
        }
        match (&self.prompt, &self.messages) {
            (None, None) => return Err(BatchError::NoPrompt),
            (Some(_), Some(_)) => return Err(BatchError::TwoPrompts),
            (Some(prompt), None) if prompt.is_empty() => return Err(field("prompt", "is empty: give a text")),
            (None, Some(messages)) if messages.is_empty() => {
                return Err(field("messages", "is empty: give at least one message"));
            }
            _ => {}
        }
        for (index, message) in self.messages.iter().flatten().enumerate() {
            let place = |name: &str| format!("messages[{index}].{name}");
            check_message(message).map_err(|defect| field(place(defect.field()), defect.problem()))?;
        }
        Ok(self)
    }

    /// The conversation of a line with messages, at the fixed time of measurements: a template that shows the day would
    /// otherwise give other answers tomorrow.
    pub(super) fn conversation(&mut self) -> ChatRequest {
        let flags = self.chat_template_kwargs;
        ChatRequest {
            messages: self.messages.take().unwrap_or_default(),
            tools: self.tools.clone().unwrap_or_default(),
            enable_thinking: flags.and_then(|flags| flags.enable_thinking),
            clear_thinking: flags.and_then(|flags| flags.clear_thinking),
            add_generation_prompt: true,
            now_unix_s: Some(ChatRequest::MEASURED_NOW_UNIX_S),
            ..ChatRequest::default()
        }
    }

    /// The settings of the sampler; those that the line lacks are those of `base`.
    pub(super) fn sampling(&self, base: SamplerConfig) -> Result<SamplerConfig, BatchError> {
        let whole = || field("seed", "has to be a whole number of 64 bits");
        let seed = |n: &Number| n.as_u64().or_else(|| n.as_i64().map(i64::cast_unsigned)).ok_or_else(whole);
        let choice = SamplerChoice {
            temperature: self.temperature,
            // Below 1 means all tokens, as in the settings that models recommend.
            top_k: self.top_k.map(|k| usize::try_from(k).unwrap_or(0)),
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repeat_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            seed: self.seed.as_ref().map_or(Ok(base.seed), seed)?,
        };
        let config = choice.over(base);
        config.check()?;
        Ok(config)
    }

    /// The texts that end the answer.
    pub(super) fn stops(&self) -> Vec<String> {
        match &self.stop {
            None => Vec::new(),
            Some(Stops::One(stop)) => vec![stop.clone()],
            Some(Stops::Many(stops)) => stops.clone(),
        }
    }
}

fn field(field: impl Into<String>, problem: impl Into<String>) -> BatchError {
    BatchError::Field { field: field.into(), problem: problem.into() }
}

/// The reason without "at line 1 column 9": the line is named elsewhere, and it is not the first one.
fn without_place(error: &serde_json::Error) -> String {
    let reason = error.to_string();
    reason.split(" at line ").next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::BatchRequest;
    use crate::sessions::sampler::SamplerConfig;

    #[test]
    fn wrong_lines_name_the_field_and_keep_the_id() {
        for (line, reason) in [
            ("", "EOF while parsing a value"),
            ("{", "EOF while parsing"),
            ("[]", "expected struct"),
            (r#"{"id":"a"}"#, "neither `prompt` nor `messages`"),
            (r#"{"id":"a","prompt":"x","messages":[{"role":"user","content":"x"}]}"#, "both `prompt` and"),
            (r#"{"id":"a","prompt":""}"#, "`prompt` is empty"),
            (r#"{"id":"a","messages":[]}"#, "`messages` is empty"),
            (r#"{"id":"a","messages":[{"role":"robot","content":"x"}]}"#, "`messages[0].role` has to be"),
            (r#"{"id":"a","messages":[{"role":"user","content":{"x":1}}]}"#, "`messages[0].content` has to be"),
            (r#"{"id":"a","prompt":"x","max_token":5}"#, "unknown field `max_token`"),
            (r#"{"id":"a","prompt":"x","max_tokens":-5}"#, "expected usize"),
            (r#"{"id":["a"],"prompt":"x"}"#, "`id` has to be a text or a number"),
        ] {
            let (id, read) = BatchRequest::read(line);
            let message = read.unwrap_err().to_string();
            assert!(message.contains(reason) && !message.contains("at line"), "{line}: {message}");
            assert_eq!(id.is_some(), line.contains(r#""id":"a""#), "{line}");
        }
    }

    #[test]
    fn settings_replace_those_of_the_batch() {
        let line = r#"{"prompt":"x","temperature":0,"top_k":-1,"seed":-1,"stop":["a","b"],"top_p":null}"#;
        let request = BatchRequest::read(line).1.unwrap();
        let base = SamplerConfig { top_k: 7, top_p: 0.5, ..SamplerConfig::default() };
        let config = request.sampling(base).unwrap();
        assert_eq!((config.temperature, config.top_k, config.top_p, config.seed), (0.0, 0, 0.5, u64::MAX));
        assert_eq!(request.stops(), ["a", "b"]);
        for (line, name) in [(r#"{"prompt":"x","seed":1.5}"#, "seed"), (r#"{"prompt":"x","top_p":7}"#, "top_p")] {
            let error = BatchRequest::read(line).1.unwrap().sampling(base).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
