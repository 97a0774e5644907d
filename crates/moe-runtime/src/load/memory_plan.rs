//! The memory that running a model takes, summed before any weight is loaded.
//!
//! **Invariant:** the sum is an upper bound of the resident memory: mapped weights count in full although the system may
//! page them, but for an embedding whose pages go back ([`Embedding`]), and buffers count at their largest.

use std::sync::Arc;

use gguf_bitnet::{Catalog, LogicalTensor, RowOrder, TensorClass, TensorType};
use mla_attention::{CacheType, CompressedMlaCache};

use crate::adapters::set::AdapterSet;
use crate::error::{Error, Result};
use crate::forward::embedding::Embedding;
use crate::forward::model::LOGIT_ROWS;
use crate::forward::mtp::MTP_ROWS;
use crate::load::error::LoadError;
use crate::load::files::ModelFiles;
use crate::models::config::ModelConfig;
use crate::sessions::error::SessionError;

/// Bytes for small things that are not counted one by one.
const SLACK_BYTES: u64 = 4 << 20;

/// Bytes of a model at a context length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Weights that stay mapped as they are in the file.
    pub mapped_weights_bytes: u64,
    /// Weights that become another type in memory.
    pub converted_weights_bytes: u64,
    /// The cache of all layers at full context.
    pub cache_bytes: u64,
    /// Buffers of a batch and of its logits.
    pub scratch_bytes: u64,
    /// Additions to the weights.
    pub adapter_bytes: u64,
}

impl MemoryPlan {
    /// Sums up a model for `n_ctx` tokens in a cache of type `ty`, with prompts in batches of `chunk`.
    #[must_use]
    pub fn new(config: &ModelConfig, catalog: &Catalog, n_ctx: usize, ty: CacheType, chunk: usize) -> MemoryPlan {
        let weights = catalog.tensors().iter().map(|tensor| resident(catalog, tensor));
        let weights = weights.fold(LoadedBytes::default(), |sum, bytes| LoadedBytes {
            mapped: sum.mapped.saturating_add(bytes.mapped),
            converted: sum.converted.saturating_add(bytes.converted),
        });
        MemoryPlan {
            mapped_weights_bytes: weights.mapped,
            converted_weights_bytes: weights.converted,
            cache_bytes: product(&[
                config.n_blocks(),
                config.cache_shape().bytes_per_token(ty),
                n_ctx.next_multiple_of(CompressedMlaCache::BLOCK),
            ]),
            scratch_bytes: scratch_bytes(config, chunk).saturating_add(mtp_bytes(config)),
            adapter_bytes: 0,
        }
    }

    /// As [`MemoryPlan::new`], for a context that the model was made for.
    ///
    /// # Errors
    /// [`SessionError::ContextTooLong`] for a longer one, which a session would refuse after all weights have been read.
    pub fn of_context(files: &ModelFiles, n_ctx: usize, ty: CacheType, chunk: usize) -> Result<MemoryPlan> {
        let made_for = files.config.n_ctx;
        if n_ctx > made_for {
            return Err(Error::Session(SessionError::ContextTooLong { asked: n_ctx, made_for }));
        }
        Ok(MemoryPlan::new(&files.config, &files.catalog, n_ctx, ty, chunk))
    }

    /// This plan for `n` sequences in one step, each with a cache of its own.
    #[must_use]
    pub fn with_sequences(mut self, config: &ModelConfig, n: usize) -> MemoryPlan {
        self.cache_bytes = self.cache_bytes.saturating_mul(n as u64);
        // A step has a row of each sequence, which may be more than a chunk of a prompt.
        let more_logits = logits_bytes(config, n.saturating_sub(LOGIT_ROWS));
        let drafters = mtp_bytes(config).saturating_mul(n.saturating_sub(1) as u64);
        let of_step = scratch_bytes(config, n).saturating_add(mtp_bytes(config));
        self.scratch_bytes = self.scratch_bytes.max(of_step).saturating_add(more_logits).saturating_add(drafters);
        self
    }

    /// This plan with the routed experts of `catalog` kept within `bytes`, as [`ExpertMemory`](crate::storage::ExpertMemory) does.
    #[must_use]
    pub fn with_expert_memory(mut self, config: &ModelConfig, catalog: &Catalog, bytes: u64) -> MemoryPlan {
        // The experts of the MTP block are not bounded.
        let is_bounded = |tensor: &&LogicalTensor| !config.is_of_mtp(&tensor.name);
        let routed = catalog.tensors().iter().filter(|tensor| tensor.class == TensorClass::RoutedExpert);
        let routed = routed.filter(is_bounded);
        let stored = routed.flat_map(|tensor| catalog.storage(tensor).into_values());
        let total = stored.fold(0u64, |sum, (_, bytes)| sum.saturating_add(bytes));
        self.mapped_weights_bytes = self.mapped_weights_bytes.saturating_sub(total.saturating_sub(bytes));
        self
    }

    /// This plan with adapters beside the weights.
    #[must_use]
    pub fn with_adapters(mut self, adapters: Option<&Arc<AdapterSet>>) -> MemoryPlan {
        self.adapter_bytes = adapters.map_or(0, |set| set.bytes());
        self
    }

    /// The sum of all parts.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        let weights = [self.mapped_weights_bytes, self.converted_weights_bytes, self.adapter_bytes];
        let parts = weights.into_iter().chain([self.cache_bytes, self.scratch_bytes]);
        parts.fold(0, u64::saturating_add)
    }

    /// Refuses a sum that is larger than `allowed`.
    ///
    /// # Errors
    /// [`LoadError::MemoryLimit`] with the sum and its parts.
    pub fn check(&self, allowed: u64) -> Result<()> {
        let need = self.total_bytes();
        if need <= allowed {
            return Ok(());
        }
        let weights = self.mapped_weights_bytes.saturating_add(self.converted_weights_bytes);
        let mut detail = format!("weights {weights} + cache {} + buffers {}", self.cache_bytes, self.scratch_bytes);
        if self.adapter_bytes > 0 {
            detail = format!("{detail} + adapters {}", self.adapter_bytes);
        }
        Err(Error::Load(LoadError::MemoryLimit { need, allowed, detail }))
    }
}

/// The bytes of a tensor in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadedBytes {
    /// Bytes that stay mapped as they are in the file.
    pub mapped: u64,
    /// Bytes of the weights that become another type or order.
    pub converted: u64,
}

impl LoadedBytes {
    /// The bytes of one tensor of a catalog.
    #[must_use]
    pub fn of(catalog: &Catalog, tensor: &LogicalTensor) -> LoadedBytes {
        let copied = tensor.parts.iter().any(|part| part.order != RowOrder::AsStored);
        let mut sum = LoadedBytes::default();
        for (stored, (params, bytes)) in catalog.storage(tensor) {
            match loaded_width(tensor.class, stored, copied) {
                None => sum.mapped = sum.mapped.saturating_add(bytes),
                Some(width) => sum.converted = sum.converted.saturating_add(params.saturating_mul(width)),
            }
        }
        sum
    }

    /// The memory that the tensor takes.
    #[must_use]
    pub fn total(self) -> u64 {
        self.mapped.saturating_add(self.converted)
    }
}

/// The bytes of a tensor that are resident at the same time.
fn resident(catalog: &Catalog, tensor: &LogicalTensor) -> LoadedBytes {
    let bytes = LoadedBytes::of(catalog, tensor);
    if Embedding::is_read_by_rows(catalog, tensor) {
        return LoadedBytes { mapped: Embedding::resident_bytes(bytes.mapped), ..bytes };
    }
    bytes
}

/// Bytes per weight after loading, or `None` when the stored bytes are used as they are. Rows that are `copied` into another
/// order take at most as much as F32.
fn loaded_width(class: TensorClass, stored: TensorType, copied: bool) -> Option<u64> {
    match class {
        TensorClass::Norm | TensorClass::Router | TensorClass::RouterBias | TensorClass::Bias => Some(4),
        _ if copied => Some(if matches!(stored, TensorType::F16 | TensorType::Bf16) { 2 } else { 4 }),
        _ => match stored {
            TensorType::Tq1_0 | TensorType::Tq2_0 | TensorType::BitnetT158 | TensorType::BitnetT158Flat => None,
            // They are repacked to 66 bytes per 256 weights; one byte per weight is an upper bound.
            TensorType::I2s | TensorType::I2sArm | TensorType::U8Trits => Some(1),
            other if crate::load::weights::dense_type(other).is_some() => None,
            _ => Some(4),
        },
    }
}

/// Buffers of a step of `rows` rows, of which at most [`LOGIT_ROWS`] have logits.
fn scratch_bytes(config: &ModelConfig, rows: usize) -> u64 {
    batch_bytes(config, rows).saturating_add(logits_bytes(config, LOGIT_ROWS)).saturating_add(SLACK_BYTES)
}

fn logits_bytes(config: &ModelConfig, rows: usize) -> u64 {
    product(&[rows, config.vocab, 4])
}

/// Buffers of the layers for a batch of `rows` rows.
fn batch_bytes(config: &ModelConfig, rows: usize) -> u64 {
    let attention = config.attention.buffered_values(config.n_heads);
    let (ff, routing) = match &config.moe {
        // Per expert of a token: its input and its hidden row as F32 and INT8, gathered in buffers that may grow to four
        // times the batch, its output and its product.
        Some(moe) => (
            moe.expert_ff.max(moe.shared_ff()),
            2 * moe.router.n_experts + moe.router.top_k * (3 + 6 * (config.hidden + moe.expert_ff)),
        ),
        None => (0, 0),
    };
    // Each activation exists as F32 and as INT8 codes with their scales; gate, up and their product per network.
    let per_token = 10 * config.hidden + 2 * attention + 4 * ff.max(config.dense_ff) + routing;
    let batch = product(&[rows, per_token, 4]);
    batch.saturating_add(batch / 2)
}

/// Buffers of one sequence's guesses by the MTP block.
fn mtp_bytes(config: &ModelConfig) -> u64 {
    if !config.reads_mtp {
        return 0;
    }
    // The states that wait for the block, and its input.
    let states = product(&[MTP_ROWS, 6 * config.hidden, 4]);
    // A guess has the logits of one row.
    batch_bytes(config, MTP_ROWS).saturating_add(states).saturating_add(logits_bytes(config, 1))
}

fn product(factors: &[usize]) -> u64 {
    factors.iter().fold(1u64, |p, &f| p.saturating_mul(u64::try_from(f).unwrap_or(u64::MAX)))
}
