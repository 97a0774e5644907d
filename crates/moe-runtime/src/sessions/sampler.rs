//! From logits to the next token: greedy, or drawn from a filtered distribution with a seed.
//!
//! Order of the filters, all on the tokens sorted by falling logit (ties: the lower id first):
//!
//! 1. temperature: `w_i = exp((z_i - max z) / temperature)`, so the best token has weight 1;
//! 2. `top_k`: the first k;
//! 3. `top_p`: the shortest prefix with the share `top_p` of the weight that 2. left, the crossing token included;
//! 4. `min_p`: tokens of at least `min_p` times the best token's weight.
//!
//! Each filter keeps a prefix of the same order, so the result is the shortest of the three prefixes.
//!
//! **Invariant:** the same logits, settings and seed give the same token on every platform: `exp` is the kernels' own
//! polynomial, sums are in `f64` and in a fixed order, and the random numbers are [`SplitMix64`].

use std::path::Path;

use gguf_bitnet::{Metadata, Value};

use crate::error::{Error, Result};
use crate::rng::SplitMix64;
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
    /// Start of the random stream.
    pub seed: u64,
}

impl Default for SamplerConfig {
    /// The model line's defaults: temperature 1, `top_p` 0.95, `min_p` 0.01, no `top_k`, seed 0.
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 0.95, min_p: 0.01, seed: 0 }
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
            seed: default.seed,
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
            seed: default.seed,
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
        Ok(())
    }
}

/// The id of the largest logit; the lowest id wins a tie.
fn most_likely(logits: &[f32]) -> Result<u32> {
    let mut best = (f32::NEG_INFINITY, 0usize);
    for (id, &z) in logits.iter().enumerate() {
        if z.is_nan() || z == f32::INFINITY {
            return Err(Error::Session(SessionError::Logit { token: id, value: z }));
        }
        if z > best.0 {
            best = (z, id);
        }
    }
    match logits.first() {
        None => Err(Error::Session(SessionError::NoLogits)),
        Some(&first) if best.0 == f32::NEG_INFINITY => {
            Err(Error::Session(SessionError::Logit { token: 0, value: first }))
        }
        Some(_) => to_id(best.1),
    }
}

fn to_id(index: usize) -> Result<u32> {
    u32::try_from(index).map_err(|_| Error::Session(SessionError::TooManyLogits { got: index }))
}

/// Draws tokens by one [`SamplerConfig`].
///
/// ```
/// use moe_runtime::{Sampler, SamplerConfig};
/// # fn main() -> moe_runtime::Result<()> {
/// let mut sampler = Sampler::new(SamplerConfig::greedy())?;
/// assert_eq!(sampler.sample(&[0.5, 2.0, 2.0])?, 1);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Sampler {
    config: SamplerConfig,
    rng: SplitMix64,
    /// Buffer for the tokens that may be drawn.
    candidates: Vec<Candidate>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    logit: f32,
    id: u32,
    weight: f32,
}

impl Candidate {
    /// Best first: falling logit, then rising id. Total, because no logit is NaN.
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        other.logit.total_cmp(&self.logit).then(self.id.cmp(&other.id))
    }
}

impl Sampler {
    /// A sampler at the start of its seed's stream.
    ///
    /// # Errors
    /// [`SessionError::Sampling`] when a setting is out of range.
    pub fn new(config: SamplerConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { config, rng: SplitMix64::new(config.seed), candidates: Vec::new() })
    }

    /// The settings that tokens are chosen by.
    #[must_use]
    pub fn config(&self) -> &SamplerConfig {
        &self.config
    }

    /// The next token for one row of logits `[vocab]`. Minus infinity forbids a token.
    ///
    /// Greedy sampling draws no random number; every other call draws exactly one.
    ///
    /// # Errors
    /// [`SessionError::Logit`] when a logit is NaN or plus infinity, or when none is finite; [`SessionError::NoLogits`] for
    /// an empty row.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let best = most_likely(logits)?;
        if self.config.is_greedy() {
            return Ok(best);
        }
        let uniform = self.rng.next_f64();
        let top = logits[best as usize];
        self.weigh(logits, top)?;
        let mass = self.keep_top_k();
        self.keep_min_p();
        self.candidates.sort_unstable_by(Candidate::order);
        self.keep_top_p(mass);
        Ok(self.draw(uniform))
    }

    /// Fills the candidates with `exp((z - top) / temperature)`, in ascending id; forbidden tokens stay out.
    fn weigh(&mut self, logits: &[f32], top: f32) -> Result<()> {
        self.candidates.clear();
        for (index, &logit) in logits.iter().enumerate() {
            if logit == f32::NEG_INFINITY {
                continue;
            }
            // The best token has distance 0; dividing it by the smallest temperature still gives 0.
            let weight = tl_kernels::math::exp((logit - top) / self.config.temperature);
            // -0 and 0 are one value: they must tie.
            self.candidates.push(Candidate { logit: logit + 0.0, id: to_id(index)?, weight });
        }
        Ok(())
    }

    /// Cuts to the `top_k` best and returns the weight of the rest, summed in ascending id.
    fn keep_top_k(&mut self) -> f64 {
        let k = self.config.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, Candidate::order);
            self.candidates.truncate(k);
            self.candidates.sort_unstable_by_key(|c| c.id);
        }
        self.candidates.iter().map(|c| f64::from(c.weight)).sum()
    }

    /// Drops unlikely tokens; the best token has weight 1 and always stays.
    fn keep_min_p(&mut self) {
        let floor = self.config.min_p;
        self.candidates.retain(|c| c.weight >= floor);
    }

    /// Cuts the sorted candidates where they first hold the share `top_p` of `mass`.
    fn keep_top_p(&mut self, mass: f64) {
        if self.config.top_p >= 1.0 {
            return;
        }
        let wanted = mass * f64::from(self.config.top_p);
        let mut held = 0.0;
        let crossing = self.candidates.iter().position(|c| {
            held += f64::from(c.weight);
            held >= wanted
        });
        if let Some(last) = crossing {
            self.candidates.truncate(last + 1);
        }
    }

    /// Inverse transform sampling over the sorted candidates; there is always at least one.
    fn draw(&self, uniform: f64) -> u32 {
        let total: f64 = self.candidates.iter().map(|c| f64::from(c.weight)).sum();
        let target = uniform * total;
        let mut held = 0.0;
        let hit = self.candidates.iter().find(|c| {
            held += f64::from(c.weight);
            held > target
        });
        hit.or(self.candidates.last()).map_or(0, |c| c.id)
    }
}

#[cfg(test)]
mod tests {
    use super::{Sampler, SamplerConfig, most_likely};
    use crate::error::Error;
    use crate::sessions::error::SessionError;
    use proptest::prelude::*;
    use std::f32::consts::LN_2;

    const OPEN: SamplerConfig = SamplerConfig { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 1 };

    /// The ids that a thousand draws return, ascending, each once.
    fn support(config: SamplerConfig, logits: &[f32]) -> Vec<u32> {
        let mut sampler = Sampler::new(config).unwrap();
        let mut seen: Vec<u32> = (0..1000).map(|_| sampler.sample(logits).unwrap()).collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    #[test]
    fn greedy_ties_go_to_the_lowest_id_and_draw_no_random_number() {
        assert_eq!(most_likely(&[1.0, 3.0, 3.0, -1.0]).unwrap(), 1);
        assert_eq!(most_likely(&[0.0, -0.0]).unwrap(), 0);
        assert_eq!(most_likely(&[-0.0, 0.0]).unwrap(), 0);
        assert_eq!(most_likely(&[f32::NEG_INFINITY, -5.0]).unwrap(), 1);
        let mut sampler = Sampler::new(SamplerConfig::greedy()).unwrap();
        let before = sampler.rng.clone();
        sampler.sample(&[0.0, 1.0]).unwrap();
        assert_eq!(sampler.rng, before);
    }

    #[test]
    fn unusable_logits_are_errors() {
        for temperature in [0.0, 1.0] {
            let mut sampler = Sampler::new(SamplerConfig { temperature, ..OPEN }).unwrap();
            assert!(matches!(
                sampler.sample(&[0.0, f32::NAN]),
                Err(Error::Session(SessionError::Logit { token: 1, .. }))
            ));
            assert!(matches!(
                sampler.sample(&[f32::INFINITY]),
                Err(Error::Session(SessionError::Logit { token: 0, .. }))
            ));
            assert!(matches!(sampler.sample(&[f32::NEG_INFINITY; 2]), Err(Error::Session(SessionError::Logit { .. }))));
            assert!(matches!(sampler.sample(&[]), Err(Error::Session(SessionError::NoLogits))));
        }
    }

    #[test]
    fn recommendations_survive_the_file() {
        let config = SamplerConfig { temperature: 0.7, top_k: 40, top_p: 0.9, min_p: 0.05, seed: 0 };
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
            (SamplerConfig { temperature: -1.0, ..OPEN }, "temperature"),
            (SamplerConfig { temperature: f32::NAN, ..OPEN }, "temperature"),
            (SamplerConfig { top_p: 0.0, ..OPEN }, "top_p"),
            (SamplerConfig { top_p: f32::NAN, ..OPEN }, "top_p"),
            (SamplerConfig { min_p: 1.5, ..OPEN }, "min_p"),
        ] {
            let error = Sampler::new(config).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    /// Probabilities 0.5, 0.25, 0.125, 0.125 at ids 2, 0, 1, 3.
    const LOGITS: [f32; 4] = [-LN_2, -2.0 * LN_2, 0.0, -2.0 * LN_2];

    #[test]
    fn each_filter_keeps_its_prefix() {
        assert_eq!(support(OPEN, &LOGITS), [0, 1, 2, 3]);
        assert_eq!(support(SamplerConfig { top_k: 1, ..OPEN }, &LOGITS), [2]);
        assert_eq!(support(SamplerConfig { top_k: 3, ..OPEN }, &LOGITS), [0, 1, 2], "a tie goes to the lower id");
        assert_eq!(support(SamplerConfig { top_p: 0.49, ..OPEN }, &LOGITS), [2]);
        assert_eq!(support(SamplerConfig { top_p: 0.6, ..OPEN }, &LOGITS), [0, 2], "the crossing token stays");
        assert_eq!(support(SamplerConfig { min_p: 0.4, ..OPEN }, &LOGITS), [0, 2]);
        assert_eq!(support(SamplerConfig { min_p: 1.0, ..OPEN }, &LOGITS), [2]);
        // Of the two tokens that top_k leaves, the first holds 2/3.
        assert_eq!(support(SamplerConfig { top_k: 2, top_p: 0.66, ..OPEN }, &LOGITS), [2]);
        assert_eq!(support(SamplerConfig { top_k: 2, top_p: 0.67, ..OPEN }, &LOGITS), [0, 2]);
        // top_p counts the mass before min_p: 0.75 of the whole needs both of the likely ones.
        assert_eq!(support(SamplerConfig { min_p: 0.4, top_p: 0.7, ..OPEN }, &LOGITS), [0, 2]);
        assert_eq!(support(SamplerConfig { temperature: 1e-30, ..OPEN }, &LOGITS), [2]);
    }

    #[test]
    fn frequencies_follow_the_distribution_and_the_temperature() {
        for (temperature, want) in [(1.0, [0.25, 0.125, 0.5, 0.125]), (0.5, [0.181_82, 0.045_45, 0.727_27, 0.045_45])] {
            let mut sampler = Sampler::new(SamplerConfig { temperature, ..OPEN }).unwrap();
            let mut count = [0u32; 4];
            for _ in 0..40_000 {
                count[sampler.sample(&LOGITS).unwrap() as usize] += 1;
            }
            for (id, share) in want.into_iter().enumerate() {
                let got = f64::from(count[id]) / 40_000.0;
                assert!((got - share).abs() < 0.01, "temperature {temperature}, token {id}: {got} against {share}");
            }
        }
    }

    #[test]
    fn a_seed_fixes_the_tokens_and_another_changes_them() {
        let logits: Vec<f32> = (0u16..50).map(|i| f32::from(i * 7 % 13) * 0.3).collect();
        let run = |seed| {
            let mut sampler = Sampler::new(SamplerConfig { seed, ..SamplerConfig::default() }).unwrap();
            (0..12).map(|_| sampler.sample(&logits).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }

    proptest! {
        #[test]
        fn a_drawn_token_is_never_a_forbidden_one(
            mut logits in prop::collection::vec(-20f32..20.0, 1..40),
            top_k in 0usize..5, top_p in 0.01f32..1.0, min_p in 0f32..1.0, temperature in 0.01f32..4.0, seed: u64,
        ) {
            logits.push(f32::NEG_INFINITY);
            let config = SamplerConfig { temperature, top_k, top_p, min_p, seed };
            let id = Sampler::new(config).unwrap().sample(&logits).unwrap() as usize;
            prop_assert!(id < logits.len() - 1);
            let better = logits.iter().filter(|&&z| z > logits[id]).count();
            prop_assert!(top_k == 0 || better < top_k);
        }
    }
}
