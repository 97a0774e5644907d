//! `--act` and `--kv`: the types of activations and of the cache.

use clap::ValueEnum;
use mla_attention::CacheType;
use ternary_core::ActMode;

/// Activations of ternary, Q8_0 and Q6_K layers. Without the option, those that the model was trained with, else those of the
/// verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Act {
    /// Not quantised, for reference runs
    F32,
    /// INT8, one scale per token and 256 values
    A8Block,
    /// INT8, one scale per token
    A8Token,
}

impl Act {
    /// Its name on the command line, for manifests.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl Kv {
    /// Its name on the command line, for manifests.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl From<Act> for ActMode {
    fn from(act: Act) -> Self {
        match act {
            Act::F32 => ActMode::F32,
            Act::A8Block => ActMode::A8Block,
            Act::A8Token => ActMode::A8Token,
        }
    }
}

/// Numbers in the key/value cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kv {
    /// Floats of 16 bits
    F16,
    /// Floats of 32 bits, for reference runs
    F32,
    /// INT8 with one scale per position and head; rotary keys of latents stay F16: little more than half the memory of f16
    I8,
}

impl From<Kv> for CacheType {
    fn from(kv: Kv) -> Self {
        match kv {
            Kv::F16 => CacheType::F16,
            Kv::F32 => CacheType::F32,
            Kv::I8 => CacheType::I8,
        }
    }
}
