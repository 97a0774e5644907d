//! The bytes that one decoded token reads from memory. Divided by the memory bandwidth they bound the decoding speed.
//!
//! **Invariant:** only bytes that every step must read count: all matrices that every token passes through, of the routed
//! experts the share that one token chooses, and one row of the embedding. The cache comes on top, position by position
//! ([`mla_attention::CompressedMlaCache::bytes_per_token`]).

use gguf_bitnet::{LogicalTensor, TensorClass};

use crate::forward::embedding::{EMBEDDING, Embedding, HEAD};
use crate::load::files::ModelFiles;
use crate::load::memory_plan::LoadedBytes;

impl ModelFiles {
    /// Bytes of weights that one decoded token reads, in the types they have after loading. Ternary weights count as they
    /// are in the file, also where they lie in memory as tiles.
    #[must_use]
    pub fn weight_bytes_per_token(&self) -> u64 {
        self.weight_bytes_where(|tensor| !self.config.is_of_mtp(&tensor.name))
    }

    /// Bytes of weights that one guess of the MTP block reads; 0 without a block.
    pub(crate) fn mtp_bytes_per_token(&self) -> u64 {
        let ModelFiles { config, catalog, .. } = self;
        if !config.reads_mtp {
            return 0;
        }
        let block = self.weight_bytes_where(|tensor| config.is_of_mtp(&tensor.name));
        // A block without a head of its own uses the model's.
        let is_head = |name: &str| config.is_of_mtp(name) && name.ends_with(".nextn.shared_head_head.weight");
        let has_head = catalog.tensors().iter().any(|tensor| is_head(&tensor.name));
        let head = if catalog.find(HEAD).is_some() { HEAD } else { EMBEDDING };
        let shared = self.weight_bytes_where(|tensor| !has_head && tensor.name == head);
        block.saturating_add(shared)
    }

    /// The part of [`ModelFiles::weight_bytes_per_token`] that belongs to some tensors.
    pub(crate) fn weight_bytes_where(&self, counts: impl Fn(&LogicalTensor) -> bool) -> u64 {
        let ModelFiles { config, catalog, .. } = self;
        let tensors = catalog.tensors().iter().filter(|tensor| counts(tensor));
        tensors.fold(0, |sum, tensor| {
            let bytes = LoadedBytes::of(catalog, tensor).total();
            sum.saturating_add(match (tensor.class, &config.moe) {
                (TensorClass::RoutedExpert, Some(moe)) => share(bytes, moe.router.top_k, moe.router.n_experts),
                _ if Embedding::is_read_by_rows(catalog, tensor) => share(bytes, 1, config.vocab),
                _ => bytes,
            })
        })
    }
}

/// `part` of `whole` equal shares of `bytes`.
fn share(bytes: u64, part: usize, whole: usize) -> u64 {
    let exact = u128::from(bytes) * part as u128 / whole.max(1) as u128;
    u64::try_from(exact).unwrap_or(u64::MAX)
}
