//! Failures of a configuration.

/// A configuration that cannot be used, or that asks for a feature which this runtime refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message names its fields")]
pub enum ConfigError {
    /// `config.json` is no JSON object.
    #[error("config.json is not readable JSON ({reason}); copy it again from the checkpoint's source")]
    ConfigJson { reason: String },
    /// A configuration key that the architecture cannot do without is absent.
    #[error("the configuration lacks `{key}`, which {arch} needs; add it or convert the model again")]
    MissingKey { key: String, arch: &'static str },
    /// A configuration value breaks a rule.
    #[error("configuration value `{key}` = {value} is not usable: {rule}")]
    BadValue { key: String, value: String, rule: String },
    /// Two keys state different things.
    #[error("the configuration contradicts itself: `{first}` and `{second}` disagree ({detail}); correct one of them")]
    Contradiction { first: String, second: String, detail: String },
    /// A model of an architecture that no file in `models/` describes.
    #[error("architecture `{got}` is not supported; this runtime knows {known}")]
    UnsupportedArchitecture { got: String, known: String },
    /// A feature of the architecture that this runtime does not compute.
    #[error("{feature} is not supported; {remedy}")]
    Unsupported { feature: String, remedy: &'static str },
    /// Position scaling, which would change every angle.
    #[error("position scaling `{kind}` (`{key}`) is not supported; use a model with plain rotary positions")]
    RopeScaling { key: String, kind: String },
}
