//! How a model is loaded and laid out: the options that `run` and `bench` share.

use anyhow::Result;
use moe_runtime::ModelFiles;
use serde_json::Value;

use super::adapters::AdapterArgs;
use super::allow_zero::AllowZero;
use super::experts::ExpertArgs;
use super::ffn_act::FfnAct;
use super::layout::LayoutArgs;
use super::precision::{Act, Kv, precision};
use super::threads::Threads;
use crate::load::{self, Engine};

/// Precision, layout, memory and threads of a running model.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct EngineArgs {
    /// Type of the numbers in the key/value cache
    #[arg(long, value_enum, default_value = "f16")]
    kv: Kv,
    /// Type of the activations of ternary, Q8_0 and Q6_K layers (default: as the model was trained, else a8-block)
    #[arg(long, value_enum)]
    act: Option<Act>,
    #[command(flatten)]
    pub(crate) adapters: AdapterArgs,
    #[command(flatten)]
    ffn_act: FfnAct,
    #[command(flatten)]
    experts: ExpertArgs,
    #[command(flatten)]
    layout: LayoutArgs,
    #[command(flatten)]
    zero: AllowZero,
    #[command(flatten)]
    threads: Threads,
}

impl EngineArgs {
    /// Opens a model without reading weights.
    pub(crate) fn open(&self, spec: &str) -> Result<ModelFiles> {
        let mut files = load::open(spec)?;
        self.ffn_act.apply(&mut files);
        Ok(files)
    }

    /// The options that decide numbers, for manifests.
    pub(crate) fn precision(&self) -> Value {
        precision(self.act, self.kv, self.ffn_act)
    }

    /// The engine that these options describe, within `memory` where that is given. Starts the threads.
    ///
    /// # Errors
    /// Options that exclude each other, and threads that do not start.
    pub(crate) fn engine(&self, memory: Option<u64>) -> Result<Engine> {
        let placement = self.layout.placement(self.experts.bound(), memory)?;
        let (act, kv, pool) = (self.act.map(Act::into), self.kv.into(), self.threads.pool()?);
        Ok(Engine { act, kv, placement, memory, pool, allow_zero: self.zero.allow_zero })
    }
}
