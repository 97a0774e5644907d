//! From the names and numbers of Python to the settings of the libraries.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mla_attention::CacheType;
use moe_runtime::{LoopConfig, Placement, SamplerChoice, SamplerConfig};
use pyo3::prelude::*;
use ternary_core::ActMode;
use tl_kernels::{HardwareCaps, Pool};

use crate::errors::{sentence, usage};

/// The threads that compute; without a number, one per physical core.
pub(crate) fn pool(threads: Option<usize>) -> PyResult<Arc<Pool>> {
    let threads = match threads {
        None => HardwareCaps::detect().default_threads(),
        Some(threads @ 1..=1024) => threads,
        Some(threads) => return Err(usage(format!("threads = {threads} is not between 1 and 1024"))),
    };
    Ok(Arc::new(Pool::new(threads).map_err(sentence)?))
}

/// Where weights lie, by its name.
pub(crate) fn placement(layout: &str) -> PyResult<Placement> {
    match layout {
        "auto" => Ok(Placement::Tiles { required: false, cache: None }),
        "file" => Ok(Placement::File),
        "packed" => Ok(Placement::Tiles { required: true, cache: None }),
        other => Err(unknown("layout", other, "auto, file or packed")),
    }
}

/// The activations, by their name.
pub(crate) fn act(name: &str) -> PyResult<ActMode> {
    match name {
        "f32" => Ok(ActMode::F32),
        "a8-block" => Ok(ActMode::A8Block),
        "a8-token" => Ok(ActMode::A8Token),
        other => Err(unknown("act", other, "f32, a8-block or a8-token")),
    }
}

/// The type of the cache, by its name.
pub(crate) fn kv(name: &str) -> PyResult<CacheType> {
    match name {
        "f16" => Ok(CacheType::F16),
        "f32" => Ok(CacheType::F32),
        "i8" => Ok(CacheType::I8),
        other => Err(unknown("kv", other, "f16, f32 or i8")),
    }
}

/// The exception of a name that is none of `known`.
pub(crate) fn unknown(what: &str, name: &str, known: &str) -> PyErr {
    usage(format!("{what} = {name:?} is unknown; choose {known}"))
}

/// The path of a model: a directory, a GGUF, or a name in the local Hugging Face cache.
pub(crate) fn locate(spec: &Path) -> PyResult<PathBuf> {
    let text = spec.to_str().ok_or_else(|| usage(format!("{} is not UTF-8", spec.display())))?;
    // Python passes its changes of `os.environ` on to the process.
    let hub = gguf_bitnet::hub_folder(&|name| std::env::var(name).ok());
    gguf_bitnet::resolve_model(text, hub.as_deref()).map_err(sentence)
}

/// How tokens are chosen and when an answer ends; `None` is the recommendation of the model.
#[derive(Clone, Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Sampling {
    pub(crate) max_tokens: usize,
    temperature: Option<f32>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    top_k: Option<usize>,
    repeat_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    seed: u64,
    pub(crate) think_budget: Option<usize>,
    pub(crate) stop: Vec<String>,
    logit_bias: Vec<(u32, f32)>,
    detect_loops: bool,
}

impl Sampling {
    /// The settings, with those of the model where none is given.
    pub(crate) fn config(&self, base: SamplerConfig) -> SamplerConfig {
        let choice = SamplerChoice {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repeat_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            seed: self.seed,
        };
        choice.over(base)
    }

    /// Numbers that are added to the logits of tokens.
    pub(crate) fn logit_bias(&self) -> Vec<(u32, f32)> {
        self.logit_bias.clone()
    }

    /// The rule that ends an answer which repeats itself.
    pub(crate) fn loops(&self) -> LoopConfig {
        let default = LoopConfig::default();
        if self.detect_loops { default } else { LoopConfig { max_period: 0, ..default } }
    }
}
