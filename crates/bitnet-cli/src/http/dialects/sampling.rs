//! The fields about the choice of tokens, which several dialects share.

use moe_runtime::{Grammar, LoopConfig, SamplerConfig, StopStrings};
use serde_json::Value;

use crate::http::answer::{Form, Rules};
use crate::http::engine::Engine;
use crate::http::failure::Failure;
use crate::http::request::Fields;

/// Most tokens of a thought by the word for its effort.
const EFFORTS: [(&str, usize); 4] = [("minimal", 128), ("low", 512), ("medium", 2048), ("high", 8192)];

/// Reads the settings of the sampler; those that are absent are the server's.
pub(super) fn sampling(fields: Fields<'_>, base: SamplerConfig) -> Result<SamplerConfig, Failure> {
    let float = |name: &str, range: std::ops::RangeInclusive<f64>, base: f32| {
        Ok::<f32, Failure>(fields.number(name, range)?.map_or(base, |number| number as f32))
    };
    let config = SamplerConfig {
        temperature: float("temperature", 0.0..=100.0, base.temperature)?,
        top_p: float("top_p", 0.0..=1.0, base.top_p)?.max(f32::MIN_POSITIVE),
        top_k: match fields.get("top_k").and_then(Value::as_i64) {
            // Some clients write "all" so.
            Some(-1) => 0,
            _ => fields.count("top_k", 0..=usize::MAX)?.unwrap_or(base.top_k),
        },
        min_p: float("min_p", 0.0..=1.0, base.min_p)?,
        frequency_penalty: float("frequency_penalty", -2.0..=2.0, base.frequency_penalty)?,
        presence_penalty: float("presence_penalty", -2.0..=2.0, base.presence_penalty)?,
        repetition_penalty: float("repeat_penalty", 0.1..=10.0, base.repetition_penalty)?,
        seed: fields.bits("seed")?.unwrap_or(base.seed),
    };
    config.check().map_err(|error| Failure::from(&error))?;
    Ok(config)
}

/// Reads stop strings, biases and the form of the answer.
pub(super) fn rules(fields: Fields<'_>, engine: &Engine) -> Result<Rules, Failure> {
    Ok(Rules {
        stops: fields.texts("stop", StopStrings::MAX)?,
        bias: bias(fields, engine)?,
        thought_budget: None,
        form: form(fields)?,
    })
}

fn bias(fields: Fields<'_>, engine: &Engine) -> Result<Vec<(u32, f32)>, Failure> {
    let Some(object) = fields.object("logit_bias")? else { return Ok(Vec::new()) };
    let vocab = engine.facts.vocab;
    let one = |(key, value): (&String, &Value)| {
        let id = key.parse::<u32>().ok().filter(|&id| (id as usize) < vocab);
        Some((id?, value.as_f64().filter(|bias| (-100.0..=100.0).contains(bias))? as f32))
    };
    let biases: Option<Vec<(u32, f32)>> = object.iter().map(one).collect();
    biases.ok_or_else(|| {
        let message = format!("`logit_bias` has to map token ids below {vocab} to numbers from -100 to 100");
        Failure::field("logit_bias", message)
    })
}

/// The form that a request demands of its answer.
fn form(fields: Fields<'_>) -> Result<Option<Form>, Failure> {
    let mut forms = Vec::new();
    if let Some(format) = fields.object("response_format")? {
        forms.extend(format_form("response_format", format.get("type"), |_| {
            format.get("json_schema").and_then(|outer| outer.get("schema")).cloned()
        })?);
    }
    if let Some(lark) = fields.text("grammar")? {
        forms.push(Form { field: "grammar", grammar: Grammar::Lark(lark.to_owned()), is_whole: true });
    }
    if let Some(regex) = fields.text("regex")? {
        forms.push(Form { field: "regex", grammar: Grammar::Regex(regex.to_owned()), is_whole: true });
    }
    if forms.len() > 1 {
        return Err(Failure::field("response_format", "send one of `response_format`, `grammar` and `regex`"));
    }
    Ok(forms.pop())
}

/// The form that a format of this type demands; `schema` finds the schema of a `json_schema`.
pub(super) fn format_form(
    field: &'static str,
    ty: Option<&Value>,
    schema: impl FnOnce(()) -> Option<Value>,
) -> Result<Option<Form>, Failure> {
    match ty.and_then(Value::as_str) {
        None | Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Form { field, grammar: Grammar::JsonObject, is_whole: true })),
        Some("json_schema") => match schema(()) {
            Some(schema) => Ok(Some(Form { field, grammar: Grammar::JsonSchema(schema), is_whole: true })),
            None => Err(Failure::field(field, format!("`{field}` has no `schema`"))),
        },
        Some(_) => Err(Failure::field(field, format!("`{field}.type` has to be text, json_object or json_schema"))),
    }
}

/// Most tokens of a thought of this effort; `None` for a word that says nothing about it.
pub(super) fn effort_tokens(effort: &str) -> Option<usize> {
    EFFORTS.iter().find(|(word, _)| *word == effort).map(|(_, tokens)| *tokens)
}

/// Loops end an answer, as they do in the terminal.
pub(super) fn loops() -> LoopConfig {
    LoopConfig::default()
}
