//! A whole model and its forward pass: embedding, layers, final norm, head.
//!
//! ```text
//! x      = embedding[tokens]                 [n, hidden]
//! x      = layer(x), for each layer          layer.rs
//! hidden = rms_norm(x)                       [n, hidden]
//! logits = head(hidden)                      [rows, vocab], of the rows that were asked for
//! ```
//!
//! **Invariant:** weights are immutable once a model exists; any number of sessions share one model. Where weights lie in
//! memory is decided while the model is loaded (load/loader.rs).

use std::sync::Arc;

use mla_attention::{CacheShape, CompressedMlaCache, Sequences};
use ternary_core::ActMode;
use tl_kernels::{ActivationBuffer, KernelSelected, Linear, Pool};

use crate::adapters::set::AdapterSet;
use crate::error::Result;
use crate::forward::ends::ModelEnds;
use crate::forward::experts::ResidencyHook;
use crate::forward::layer::{Batch, DecoderLayer, LayerScratch};
use crate::forward::mtp::{Mtp, MtpBlock};
use crate::forward::rows::StepRows;
use crate::forward::taps::Taps;
use crate::models::config::ModelConfig;
use crate::storage::weight_storage::StorageReport;

/// Rows of logits that are computed at once.
pub(crate) const LOGIT_ROWS: usize = 16;

/// A model ready to run.
#[derive(Debug)]
pub struct CraftsmanModel {
    config: ModelConfig,
    weights: ModelWeights,
    pool: Arc<Pool>,
    kernels: Vec<KernelSelected>,
    storage: StorageReport,
}

/// The products of a model, as its loader chose them: together with weights and configuration they decide its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Products {
    /// The activations of ternary, Q8_0 and Q6_K matrices.
    pub activations: ActMode,
    /// Whether ternary matrices multiply in floating point, in the order of training.
    pub float: bool,
}

/// All weights of a model.
#[derive(Debug)]
pub(crate) struct ModelWeights {
    pub(crate) products: Products,
    pub(crate) ends: ModelEnds,
    pub(crate) layers: Vec<DecoderLayer>,
    /// The block behind the layers that guesses further tokens, where it was read.
    pub(crate) mtp: Option<MtpBlock>,
}

/// The buffers of a step. They grow to the largest batch seen; then a step allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct ForwardScratch {
    /// `[n, hidden]`: the residual stream.
    x: Vec<f32>,
    /// `[n, hidden]`: the output of the final norm.
    hidden: Vec<f32>,
    layer: LayerScratch,
    acts: ActivationBuffer,
    /// The adapters of the step.
    pub(crate) adapters: Option<Arc<AdapterSet>>,
    /// The logits that were computed last, `[rows, vocab]`.
    logits: Vec<f32>,
}

impl ForwardScratch {
    /// The logits that were computed last, `[rows, vocab]`.
    pub(crate) fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// The output of the final norm, `[n, hidden]`.
    pub(crate) fn hidden(&self) -> &[f32] {
        &self.hidden
    }
}

/// The forward pass of a batch.
impl CraftsmanModel {
    /// Moves `rows` through all layers and the final norm; their caches then hold them too. Segments that are interrupted
    /// leave between two layers.
    pub(crate) fn forward<T: Taps>(
        &self,
        rows: &mut StepRows,
        caches: &mut [CompressedMlaCache],
        scratch: &mut ForwardScratch,
        taps: &mut T,
    ) -> Result<()> {
        let ForwardScratch { x, hidden, layer: buffers, adapters, .. } = scratch;
        let width = self.config.hidden;
        self.weights.ends.embed(&rows.tokens, x)?;
        for (index, layer) in self.weights.layers.iter().enumerate() {
            rows.drop_interrupted(x, width, caches);
            if x.is_empty() {
                break;
            }
            let mut sequences = Sequences { segments: &rows.segments, caches, layer: index };
            let adapter = adapters.as_ref().and_then(|set| set.layer(index));
            layer.forward(Batch { pool: &self.pool, x, scratch: buffers, adapter }, &mut sequences, taps)?;
        }
        self.weights.ends.parts().norm_into(&self.pool, x, hidden);
        taps.final_hidden(rows.segments.first_position(), hidden);
        Ok(())
    }

    /// Computes the logits of `rows` of the last batch into [`ForwardScratch::logits`].
    pub(crate) fn compute_logits(&self, rows: &[usize], scratch: &mut ForwardScratch) {
        let ForwardScratch { hidden, acts, logits, adapters, .. } = scratch;
        let width = self.config.hidden;
        acts.fill(rows.len(), width, |i, row| row.copy_from_slice(&hidden[rows[i] * width..][..width]));
        self.weights.ends.parts().logits_into(&self.pool, rows.len(), acts, logits);
        if let Some(addition) = adapters.as_ref().and_then(|set| set.head()) {
            addition.add(&self.pool, acts, logits);
        }
    }
}

/// The parts of a model.
impl CraftsmanModel {
    pub(crate) fn new(
        config: ModelConfig,
        weights: ModelWeights,
        pool: Arc<Pool>,
        kernels: Vec<KernelSelected>,
        storage: StorageReport,
    ) -> CraftsmanModel {
        CraftsmanModel { config, weights, pool, kernels, storage }
    }

    /// The same model with `hook` called before the experts of a layer are read.
    #[must_use]
    pub fn with_residency_hook(mut self, hook: &ResidencyHook) -> CraftsmanModel {
        self.weights.layers.iter_mut().for_each(|layer| layer.set_residency_hook(hook));
        self
    }

    /// Shapes and rules of the model.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The layers in order.
    #[must_use]
    pub fn layers(&self) -> &[DecoderLayer] {
        &self.weights.layers
    }

    /// How its matrices multiply.
    #[must_use]
    pub fn products(&self) -> Products {
        self.weights.products
    }

    /// The kernel of each type of weights, with the result of its self-test.
    #[must_use]
    pub fn kernels(&self) -> &[KernelSelected] {
        &self.kernels
    }

    /// Where the weights lie in memory.
    #[must_use]
    pub fn storage(&self) -> &StorageReport {
        &self.storage
    }

    /// The threads that compute.
    #[must_use]
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The head, `[vocab, hidden]`; the embedding itself in tied models.
    #[must_use]
    pub fn head(&self) -> &Linear {
        self.weights.ends.head()
    }

    /// The MTP block, where it was read.
    pub(crate) fn mtp(&self) -> Option<Mtp<'_>> {
        let block = self.weights.mtp.as_ref()?;
        Some(Mtp { block, ends: block.ends(self.weights.ends.parts()), pool: &self.pool })
    }

    /// The weight of the final norm, `[hidden]`.
    #[must_use]
    pub fn final_norm(&self) -> &[f32] {
        self.weights.ends.final_norm()
    }

    /// Whether the embedding serves as the head.
    #[must_use]
    pub fn head_is_tied(&self) -> bool {
        self.weights.ends.head_is_tied()
    }

    /// The numbers that each layer stores per position.
    pub(crate) fn cache_shapes(&self) -> impl Iterator<Item = CacheShape> + '_ {
        self.layers().iter().map(DecoderLayer::cache_shape)
    }
}
