//! How a model is loaded and laid out: the arguments that `run` and `bench` share.

use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use moe_runtime::SessionError;
use moe_runtime::storage::WeightStorage;
use moe_runtime::{CraftsmanModel, MemoryPlan, ModelFiles, Session};
use tl_kernels::Pool;

use crate::layout::LayoutArgs;
use crate::model::{self, Act, Experts, Kv, Threads};

/// Precision, layout, memory and threads of a running model.
#[derive(Clone, Debug, Args)]
pub(crate) struct EngineArgs {
    /// Numbers in the cache
    #[arg(long, value_enum, default_value = "f16")]
    kv: Kv,
    /// Activations of ternary, Q8_0 and Q6_K layers
    #[arg(long, value_enum, default_value = "a8-block")]
    act: Act,
    #[command(flatten)]
    experts: Experts,
    #[command(flatten)]
    layout: LayoutArgs,
    #[command(flatten)]
    threads: Threads,
}

impl EngineArgs {
    /// Starts the threads.
    pub(crate) fn pool(&self) -> Result<Arc<Pool>> {
        self.threads.pool()
    }

    /// What the model takes with `n_ctx` tokens, in batches of `chunk`. Reads no weights, and refuses here what a session
    /// would refuse after all have been read.
    pub(crate) fn plan(&self, files: &ModelFiles, n_ctx: usize, chunk: usize) -> Result<MemoryPlan> {
        let made_for = files.config.n_ctx;
        if n_ctx > made_for {
            return Err(moe_runtime::Error::Session(SessionError::ContextTooLong { asked: n_ctx, made_for }).into());
        }
        let cache = self.kv.cache_type(&files.config)?;
        let plan = MemoryPlan::new(&files.config, &files.catalog, n_ctx, cache, chunk);
        Ok(match self.experts.memory() {
            Some(bytes) => plan.with_expert_memory(&files.catalog, bytes),
            None => plan,
        })
    }

    /// Loads and packs the model that `plan` is about, within `memory` where that is given.
    pub(crate) fn load(
        &self,
        files: &ModelFiles,
        pool: Arc<Pool>,
        plan: &MemoryPlan,
        memory: Option<u64>,
    ) -> Result<Arc<CraftsmanModel>> {
        self.layout.check(memory, self.experts)?;
        let mut options = model::options(files, self.act, self.layout.kernel(), pool);
        options.storage = match self.experts.options() {
            Some(experts) => WeightStorage::Experts(experts),
            None => self.layout.storage(files, plan, memory),
        };
        let model = self.layout.load(files, &options)?;
        self.layout.note_storage(&model, files, memory);
        Ok(Arc::new(model))
    }

    /// An empty sequence of at most `n_ctx` tokens.
    pub(crate) fn session(&self, model: Arc<CraftsmanModel>, n_ctx: usize) -> Result<Session> {
        let cache = self.kv.cache_type(model.config())?;
        Ok(Session::new(model, n_ctx, cache)?)
    }
}
