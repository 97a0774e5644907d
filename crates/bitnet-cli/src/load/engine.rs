//! A running model as the command line describes it: precision, the place of its weights, memory and threads.

use std::sync::Arc;

use anyhow::Result;
use mla_attention::CacheType;
use moe_runtime::{CraftsmanModel, MemoryPlan, ModelFiles, Placement, Session};
use ternary_core::ActMode;
use tl_kernels::Pool;

use super::{model, storage};
use crate::output::Progress;

/// The options of `run` and `bench`, resolved: every value of this type can be loaded.
#[derive(Debug)]
pub(crate) struct Engine {
    /// `None` for the activations that the model was trained with, or those by block.
    pub(crate) act: Option<ActMode>,
    pub(crate) kv: CacheType,
    pub(crate) placement: Placement,
    /// Bytes that the program may take, where the user said so.
    pub(crate) memory: Option<u64>,
    pub(crate) pool: Arc<Pool>,
    /// Whether the model may lack weights.
    pub(crate) allow_zero: bool,
}

impl Engine {
    /// The memory that the model takes with `n_ctx` tokens, in batches of `chunk`. Reads no weights, and refuses a context
    /// that a session would only refuse after all weights have been read.
    pub(crate) fn plan(&self, files: &ModelFiles, n_ctx: usize, chunk: usize) -> Result<MemoryPlan> {
        let plan = MemoryPlan::of_context(files, n_ctx, self.kv, chunk)?;
        Ok(match &self.placement {
            Placement::BoundedExperts(options) => plan.with_expert_memory(&files.config, &files.catalog, options.bytes),
            _ => plan,
        })
    }

    /// Loads the model that `plan` is about, with a bar while a file of tiles is made.
    pub(crate) fn load(&self, files: &ModelFiles, plan: &MemoryPlan) -> Result<Arc<CraftsmanModel>> {
        let kernel = match self.placement {
            Placement::Lookup(kernel) => Some(kernel),
            _ => None,
        };
        let mut options = model::options(files, self.act, kernel, self.allow_zero, self.pool.clone());
        options.storage = self.placement.storage(files, plan, self.memory);
        let progress = Progress::bytes("making the layout cache");
        let model = model::load_with_progress(files, &options, &mut |done, total| progress.show(done, total))?;
        drop(progress);
        let all_layers_required = matches!(self.placement, Placement::Tiles { required: true, .. });
        storage::note_result(&model, &options.storage, self.memory, all_layers_required);
        Ok(Arc::new(model))
    }

    /// An empty sequence of at most `n_ctx` tokens.
    pub(crate) fn session(&self, model: Arc<CraftsmanModel>, n_ctx: usize) -> Result<Session> {
        Ok(Session::new(model, n_ctx, self.kv)?)
    }
}
