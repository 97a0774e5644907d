//! The settings that a user asks for, in place of those that the model recommends.

use super::config::SamplerConfig;

/// The settings of a [`SamplerConfig`] that a user may leave to the model: `None` is the model's own.
///
/// ```
/// use moe_runtime::{SamplerChoice, SamplerConfig};
/// let choice = SamplerChoice { top_p: Some(0.5), seed: 7, ..SamplerChoice::default() };
/// let config = choice.over(SamplerConfig::tool_use());
/// assert_eq!((config.temperature, config.top_p, config.seed), (0.7, 0.5, 7));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the fields of SamplerConfig describe them")]
pub struct SamplerChoice {
    pub temperature: Option<f32>,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    /// Start of the random stream; a model recommends none.
    pub seed: u64,
}

impl SamplerChoice {
    /// The settings of `base` with the chosen ones in their place. Their ranges are not checked:
    /// [`SamplerConfig::check`] does that, and so does [`Sampler::new`](crate::Sampler::new).
    #[must_use]
    pub fn over(&self, base: SamplerConfig) -> SamplerConfig {
        SamplerConfig {
            temperature: self.temperature.unwrap_or(base.temperature),
            top_k: self.top_k.unwrap_or(base.top_k),
            top_p: self.top_p.unwrap_or(base.top_p),
            min_p: self.min_p.unwrap_or(base.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(base.repetition_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(base.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(base.presence_penalty),
            seed: self.seed,
        }
    }
}
