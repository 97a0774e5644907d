//! From the names and numbers of JavaScript to the settings of the libraries.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use moe_runtime::{LoopConfig, Placement, SamplerChoice, SamplerConfig};
use napi::{Error, Result, Status};
use napi_derive::napi;
use tl_kernels::{HardwareCaps, Pool};

/// How a model is loaded.
#[napi(object)]
#[derive(Clone, Debug)]
pub struct NativeLoadOptions {
    /// A checkpoint folder or a GGUF file.
    pub path: String,
    /// Threads that compute; one per physical core where nothing is given.
    pub threads: Option<u32>,
    /// Most bytes that the model may take.
    pub memory: Option<f64>,
    /// `auto`, `file` or `packed`.
    pub layout: Option<String>,
    /// Tokens of a context that does not say otherwise.
    pub context_size: Option<u32>,
    /// Whether weights may be missing.
    pub allow_zero: Option<bool>,
}

/// How tokens are chosen, and when an answer ends; a setting that is absent is the recommendation of the model.
#[napi(object)]
#[derive(Clone, Debug)]
pub struct NativeSampling {
    /// Most tokens of the answer.
    pub max_tokens: Option<u32>,
    /// Divides the logits; 0 takes the most likely token.
    pub temperature: Option<f64>,
    /// Keep the most likely tokens that hold this share of the probability.
    pub top_p: Option<f64>,
    /// Drop tokens less likely than this share of the most likely one.
    pub min_p: Option<f64>,
    /// Keep this many tokens; 0 keeps all.
    pub top_k: Option<u32>,
    /// Start of the random numbers.
    pub seed: Option<u32>,
    /// Divides the logits of tokens that the answer holds.
    pub repeat_penalty: Option<f64>,
    /// Texts that end the answer.
    pub stop: Option<Vec<String>>,
    /// Whether an answer that repeats itself is ended.
    pub detect_loops: Option<bool>,
}

impl NativeSampling {
    /// The settings, with those of the model where none is given.
    pub(crate) fn config(&self, base: SamplerConfig) -> SamplerConfig {
        let number = |asked: Option<f64>| asked.map(|asked| asked as f32);
        let choice = SamplerChoice {
            temperature: number(self.temperature),
            top_k: self.top_k.map(|k| k as usize),
            top_p: number(self.top_p),
            min_p: number(self.min_p),
            repetition_penalty: number(self.repeat_penalty),
            seed: u64::from(self.seed.unwrap_or(0)),
            ..SamplerChoice::default()
        };
        choice.over(base)
    }

    /// The rule that ends an answer which repeats itself.
    pub(crate) fn loops(&self) -> LoopConfig {
        let default = LoopConfig::default();
        if self.detect_loops.unwrap_or(true) { default } else { LoopConfig { max_period: 0, ..default } }
    }
}

impl NativeLoadOptions {
    /// The path of the model.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        gguf_bitnet::resolve_model(&self.path, None).map_err(failed)
    }

    /// The place that `layout` names.
    pub(crate) fn placement(&self) -> Result<Placement> {
        match self.layout.as_deref().unwrap_or("auto") {
            "auto" => Ok(Placement::Tiles { required: false, cache: None }),
            "file" => Ok(Placement::File),
            "packed" => Ok(Placement::Tiles { required: true, cache: None }),
            other => Err(usage(format!("layout = {other:?} is unknown; choose auto, file or packed"))),
        }
    }

    /// The threads that compute.
    pub(crate) fn pool(&self) -> Result<Arc<Pool>> {
        let threads = match self.threads {
            None => HardwareCaps::detect().default_threads(),
            Some(threads @ 1..=1024) => threads as usize,
            Some(threads) => return Err(usage(format!("threads = {threads} is not between 1 and 1024"))),
        };
        Ok(Arc::new(Pool::new(threads).map_err(failed)?))
    }

    /// Most bytes that the model may take.
    pub(crate) fn memory(&self) -> Result<Option<u64>> {
        match self.memory {
            None => Ok(None),
            // Numbers of JavaScript hold every whole number of bytes below 9 PB.
            Some(bytes) if (0.0..=9e15).contains(&bytes) => Ok(Some(bytes as u64)),
            Some(bytes) => Err(usage(format!("memory = {bytes} is no number of bytes"))),
        }
    }
}

/// The exception of a failure: its own sentence.
pub(crate) fn failed(error: impl std::fmt::Display) -> Error {
    Error::new(Status::GenericFailure, error.to_string())
}

/// The exception of an argument that cannot be used.
pub(crate) fn usage(sentence: impl Into<String>) -> Error {
    Error::new(Status::InvalidArg, sentence.into())
}

/// The state of a value behind a lock; each critical section is one assignment, so a panic elsewhere leaves it whole.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
