//! `--temp` to `--seed`: how tokens are chosen; `--json` and `--think-budget`: what they have to follow.

use anyhow::{Result, anyhow};
use moe_runtime::{Grammar, GrammarCompiler, ModelFiles, Sampler, SamplerChoice, SamplerConfig, Tokenizer};
use serde_json::Value;

use super::number::whole;
use super::seed::{Seed, seed};
use crate::exit::UsageError;
use crate::load;

/// How tokens are chosen; a setting that is not given is the model's own recommendation.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SamplingArgs {
    /// Temperature; 0 always takes the most likely token
    #[arg(long, value_name = "T", value_parser = temperature)]
    temp: Option<f32>,
    /// Keep the most likely tokens that hold this share of the probability
    #[arg(long, value_name = "P", value_parser = top_p)]
    top_p: Option<f32>,
    /// Drop tokens less likely than this share of the most likely one
    #[arg(long, value_name = "P", value_parser = min_p)]
    min_p: Option<f32>,
    /// Keep this many tokens; 0 or -1 keeps all
    #[arg(long, value_name = "K", value_parser = top_k)]
    top_k: Option<usize>,
    /// Make tokens that the answer holds less likely: their logits are divided by this number, or multiplied below 0
    #[arg(long, value_name = "F", value_parser = repeat_penalty)]
    repeat_penalty: Option<f32>,
    /// Take this number from the logit of a token once for each time that the answer holds it
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = frequency_penalty)]
    frequency_penalty: Option<f32>,
    /// Take this number from the logits of tokens that the answer holds
    #[arg(long, value_name = "F", allow_negative_numbers = true, value_parser = presence_penalty)]
    presence_penalty: Option<f32>,
    /// Seed of the random choice; the same seed gives the same answer, and -1 draws one and prints it
    #[arg(long, default_value = "0", value_parser = seed)]
    seed: Seed,
    /// JSON schema that the answer follows, after its thought: the schema itself, or a file with it
    #[arg(long, value_name = "SCHEMA", value_parser = schema)]
    json: Option<Schema>,
    /// Most tokens of a thought before the answer
    #[arg(long, value_name = "N", value_parser = whole::<usize>(0..=u64::MAX))]
    think_budget: Option<usize>,
}

/// A JSON schema on the command line.
#[derive(Clone, Debug)]
enum Schema {
    Text(Value),
    File(String),
}

impl SamplingArgs {
    /// The sampler of a model's answers: its own settings, with those of the command line in their place.
    ///
    /// # Errors
    /// Settings of the model out of range, and a schema that cannot be read or followed.
    pub(crate) fn sampler(&self, files: &ModelFiles, tokenizer: &Tokenizer) -> Result<Sampler> {
        let sampler = Sampler::new(self.config(files)?)?.with_thought_budget(self.think_budget);
        let schema = match &self.json {
            None => return Ok(sampler),
            Some(Schema::Text(schema)) => schema.clone(),
            Some(Schema::File(path)) => {
                let text = load::read_text(path)?;
                serde_json::from_str(&text).map_err(|error| anyhow!("the schema in {path} is no JSON: {error}"))?
            }
        };
        let constraint = GrammarCompiler::of_model(tokenizer).compile(&Grammar::JsonSchema(schema))?;
        Ok(sampler.with_constraint(Box::new(constraint)))
    }

    /// The settings of many requests, which say themselves what form their answers have; `form` is the sentence that refuses
    /// the options about the form of one answer.
    ///
    /// # Errors
    /// Options about the form of one answer; settings of the model out of range.
    pub(crate) fn of_requests(&self, files: &ModelFiles, form: &str) -> Result<SamplerConfig> {
        if self.json.is_some() || self.think_budget.is_some() {
            return Err(UsageError::new(form).into());
        }
        self.config(files)
    }

    fn config(&self, files: &ModelFiles) -> Result<SamplerConfig> {
        let choice = SamplerChoice {
            temperature: self.temp,
            top_p: self.top_p,
            min_p: self.min_p,
            top_k: self.top_k,
            repetition_penalty: self.repeat_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            seed: self.seed.number(),
        };
        let config = choice.over(files.sampling()?);
        config.check()?;
        Ok(config)
    }
}

/// A schema that begins with a brace, or the name of a file.
fn schema(text: &str) -> Result<Schema, String> {
    match text.trim_start().starts_with('{') {
        true => {
            serde_json::from_str(text).map(Schema::Text).map_err(|error| format!("this schema is no JSON: {error}"))
        }
        false if text.is_empty() || text == "-" => {
            Err("write a JSON schema, or the name of a file with one".to_owned())
        }
        false => Ok(Schema::File(text.to_owned())),
    }
}

fn top_k(text: &str) -> Result<usize, String> {
    if text == "-1" { Ok(0) } else { whole(0..=u64::MAX)(text) }
}

fn temperature(text: &str) -> Result<f32, String> {
    setting(text, |temperature| SamplerConfig { temperature, ..SamplerConfig::greedy() })
}

fn top_p(text: &str) -> Result<f32, String> {
    setting(text, |top_p| SamplerConfig { top_p, ..SamplerConfig::greedy() })
}

fn min_p(text: &str) -> Result<f32, String> {
    setting(text, |min_p| SamplerConfig { min_p, ..SamplerConfig::greedy() })
}

fn repeat_penalty(text: &str) -> Result<f32, String> {
    setting(text, |repetition_penalty| SamplerConfig { repetition_penalty, ..SamplerConfig::greedy() })
}

fn frequency_penalty(text: &str) -> Result<f32, String> {
    setting(text, |frequency_penalty| SamplerConfig { frequency_penalty, ..SamplerConfig::greedy() })
}

fn presence_penalty(text: &str) -> Result<f32, String> {
    setting(text, |presence_penalty| SamplerConfig { presence_penalty, ..SamplerConfig::greedy() })
}

/// Parses a number, and refuses one that the sampler would refuse in the setting that `config` puts it in.
fn setting(text: &str, config: fn(f32) -> SamplerConfig) -> Result<f32, String> {
    let value = text.parse().map_err(|_| "write a number, for example 0.7".to_owned())?;
    config(value).check().map_err(|error| error.to_string())?;
    Ok(value)
}
