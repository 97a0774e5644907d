//! `--temp`, `--top-p`, `--min-p`, `--top-k` and `--seed`: how tokens are chosen.

use anyhow::Result;
use moe_runtime::{ModelFiles, SamplerConfig};

use super::number::whole;
use super::seed::{Seed, seed};

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
    /// Seed of the random choice; the same seed gives the same answer, and -1 draws one and prints it
    #[arg(long, default_value = "0", value_parser = seed)]
    seed: Seed,
}

impl SamplingArgs {
    /// The settings of the model, with the settings of the command line in their place.
    pub(crate) fn config(&self, files: &ModelFiles) -> Result<SamplerConfig> {
        let base = files.sampling()?;
        let config = SamplerConfig {
            temperature: self.temp.unwrap_or(base.temperature),
            top_p: self.top_p.unwrap_or(base.top_p),
            min_p: self.min_p.unwrap_or(base.min_p),
            top_k: self.top_k.unwrap_or(base.top_k),
            seed: self.seed.number(),
        };
        config.check()?;
        Ok(config)
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

/// Parses a number, and refuses one that the sampler would refuse in the setting that `config` puts it in.
fn setting(text: &str, config: fn(f32) -> SamplerConfig) -> Result<f32, String> {
    let value = text.parse().map_err(|_| "write a number, for example 0.7".to_owned())?;
    config(value).check().map_err(|error| error.to_string())?;
    Ok(value)
}
