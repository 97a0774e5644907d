//! The settings by which tokens are chosen, and the places where models recommend them.

use std::path::Path;

use gguf_bitnet::{Metadata, Value};

use crate::error::{Error, Result};
use crate::sessions::error::SessionError;
use crate::text::tokenizer::read_json;

const TEMPERATURE_KEY: &str = "general.sampling.temp";
const TOP_K_KEY: &str = "general.sampling.top_k";
const TOP_P_KEY: &str = "general.sampling.top_p";
const MIN_P_KEY: &str = "general.sampling.min_p";
const REPEAT_KEY: &str = "general.sampling.penalty_repeat";

/// The rule by which the next token is chosen.
///
/// ```
/// use moe_runtime::SamplerConfig;
/// let config = SamplerConfig { top_p: 0.9, seed: 42, ..SamplerConfig::default() };
/// assert!(config.check().is_ok() && !config.is_greedy());
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerConfig {
    /// Divides the logits; 0 means greedy.
    pub temperature: f32,
    /// Keep this many best tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the best tokens that hold this share of the probability, in `(0, 1]`; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this share of the best one, in `[0, 1]`; 0 drops none.
    pub min_p: f32,
    /// Divides the positive logits of tokens that the answer holds and multiplies their negative ones, in `[0.1, 10]`; 1
    /// changes none, more makes repetition less likely.
    pub repetition_penalty: f32,
    /// Taken from the logit of a token once for each time that the answer holds it, in `[-2, 2]`; 0 takes none.
    pub frequency_penalty: f32,
    /// Taken from the logit of a token that the answer holds, in `[-2, 2]`; 0 takes none.
    pub presence_penalty: f32,
    /// Start of the random stream.
    pub seed: u64,
}

impl Default for SamplerConfig {
    /// The model line's defaults: temperature 1, `top_p` 0.95, `min_p` 0.01, no `top_k`, no penalty, seed 0.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 0.95,
            min_p: 0.01,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
        }
    }
}

impl SamplerConfig {
    /// Always the best token.
    #[must_use]
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// The model line's defaults for turns with tools: temperature 0.7, `top_p` 1.
    #[must_use]
    pub fn tool_use() -> Self {
        Self { temperature: 0.7, top_p: 1.0, ..Self::default() }
    }

    /// The settings that a GGUF file recommends; settings that it lacks keep their defaults.
    ///
    /// # Errors
    /// A value of the wrong type, or one out of range.
    pub(crate) fn recommended(metadata: &Metadata) -> Result<Self> {
        let default = Self::default();
        let top_k = metadata.i32(TOP_K_KEY)?;
        let config = Self {
            temperature: metadata.f32(TEMPERATURE_KEY)?.unwrap_or(default.temperature),
            // Below 1 means all tokens.
            top_k: top_k.map_or(default.top_k, |k| usize::try_from(k).unwrap_or(0)),
            top_p: metadata.f32(TOP_P_KEY)?.unwrap_or(default.top_p),
            min_p: metadata.f32(MIN_P_KEY)?.unwrap_or(default.min_p),
            ..default
        };
        config.check()?;
        Ok(config)
    }

    /// The settings in the `generation_config.json` of a checkpoint directory; settings that it lacks keep their defaults.
    ///
    /// # Errors
    /// A file that is no JSON, or a value out of range.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let default = Self::default();
        let json = read_json(&dir.join("generation_config.json"))?.unwrap_or_default();
        let number = |key: &str, default: f32| json[key].as_f64().map_or(default, |value| value as f32);
        let config = Self {
            temperature: number("temperature", default.temperature),
            top_k: json["top_k"].as_u64().map_or(default.top_k, |k| usize::try_from(k).unwrap_or(0)),
            top_p: number("top_p", default.top_p),
            min_p: number("min_p", default.min_p),
            ..default
        };
        config.check()?;
        Ok(config)
    }

    /// The metadata that recommends these settings; a repeat penalty is never recommended (1 means none).
    #[must_use]
    pub fn entries(&self) -> Vec<(String, Value)> {
        let top_k = i32::try_from(self.top_k).unwrap_or(i32::MAX);
        let entries: [(&str, Value); 5] = [
            (TEMPERATURE_KEY, self.temperature.into()),
            (TOP_K_KEY, top_k.into()),
            (TOP_P_KEY, self.top_p.into()),
            (MIN_P_KEY, self.min_p.into()),
            (REPEAT_KEY, 1f32.into()),
        ];
        entries.map(|(key, value)| (key.to_owned(), value)).into()
    }

    /// Whether a penalty changes logits.
    pub(super) fn penalises(&self) -> bool {
        self.repetition_penalty != 1.0 || self.frequency_penalty != 0.0 || self.presence_penalty != 0.0
    }

    /// Whether no randomness is involved.
    #[must_use]
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`SessionError::Sampling`] names the first setting out of range.
    pub fn check(&self) -> Result<()> {
        let bad = |setting, value: f32, rule| Err(Error::Session(SessionError::Sampling { setting, value, rule }));
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return bad("temperature", self.temperature, "a finite number of at least 0");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return bad("top_p", self.top_p, "above 0 and at most 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return bad("min_p", self.min_p, "between 0 and 1");
        }
        if !(0.1..=10.0).contains(&self.repetition_penalty) {
            return bad("repetition_penalty", self.repetition_penalty, "between 0.1 and 10");
        }
        if !(-2.0..=2.0).contains(&self.frequency_penalty) {
            return bad("frequency_penalty", self.frequency_penalty, "between -2 and 2");
        }
        if !(-2.0..=2.0).contains(&self.presence_penalty) {
            return bad("presence_penalty", self.presence_penalty, "between -2 and 2");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::SamplerConfig;

    #[test]
    fn recommendations_survive_the_file() {
        let config = SamplerConfig { temperature: 0.7, top_k: 40, top_p: 0.9, min_p: 0.05, ..SamplerConfig::default() };
        let mut metadata = gguf_bitnet::Metadata::default();
        assert_eq!(SamplerConfig::recommended(&metadata).unwrap(), SamplerConfig::default());
        for (key, value) in config.entries() {
            metadata.insert(key, value);
        }
        assert_eq!(SamplerConfig::recommended(&metadata).unwrap(), config);
        metadata.insert("general.sampling.top_k", -1i32);
        assert_eq!(SamplerConfig::recommended(&metadata).unwrap().top_k, 0);
        metadata.insert("general.sampling.top_p", 7f32);
        assert!(SamplerConfig::recommended(&metadata).is_err());
    }

    #[test]
    fn settings_out_of_range_are_named() {
        for (config, name) in [
            (SamplerConfig { temperature: -1.0, ..SamplerConfig::default() }, "temperature"),
            (SamplerConfig { temperature: f32::NAN, ..SamplerConfig::default() }, "temperature"),
            (SamplerConfig { top_p: 0.0, ..SamplerConfig::default() }, "top_p"),
            (SamplerConfig { top_p: f32::NAN, ..SamplerConfig::default() }, "top_p"),
            (SamplerConfig { min_p: 1.5, ..SamplerConfig::default() }, "min_p"),
            (SamplerConfig { repetition_penalty: 0.0, ..SamplerConfig::default() }, "repetition_penalty"),
            (SamplerConfig { frequency_penalty: f32::INFINITY, ..SamplerConfig::default() }, "frequency_penalty"),
            (SamplerConfig { presence_penalty: f32::NAN, ..SamplerConfig::default() }, "presence_penalty"),
        ] {
            let error = config.check().unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
