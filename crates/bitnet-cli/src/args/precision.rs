//! `--act` and `--kv`: the types of activations and of the cache.

use clap::ValueEnum;
use mla_attention::CacheType;
use serde_json::{Value, json};
use ternary_core::ActMode;

use super::ffn_act::FfnAct;

/// The options that decide numbers, for manifests: an absent one is the model's own.
pub(crate) fn precision(act: Option<Act>, kv: Kv, ffn_act: FfnAct) -> Value {
    json!({ "act": act.map(|act| name(&act)), "kv": name(&kv), "ffn_act": ffn_act.asked().map(|asked| name(&asked)) })
}

/// How the command line writes a value.
pub(crate) fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

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
