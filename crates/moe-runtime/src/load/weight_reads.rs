//! The bytes that one decoded token reads from memory. Divided by the memory bandwidth they bound the decoding speed.
//!
//! **Invariant:** only bytes that every step must read count: all matrices that every token passes through, of the routed
//! experts the share that one token chooses, and one row of the embedding. The cache comes on top, position by position
//! ([`mla_attention::CompressedMlaCache::bytes_per_token`]).

use gguf_bitnet::{LogicalTensor, RowOrder, TensorClass};

use crate::load::files::{ModelFiles, mtp_layer};
use crate::load::memory_plan::loaded_width;

impl ModelFiles {
    /// Bytes of weights that one decoded token reads, in the types they have after loading. Ternary weights count as they
    /// are in the file, also where they lie in memory as tiles.
    #[must_use]
    pub fn weight_bytes_per_token(&self) -> u64 {
        let mtp = mtp_layer(&self.catalog);
        self.weight_bytes_where(|tensor| !mtp.is_some_and(|layer| tensor.name.starts_with(layer)))
    }

    /// Bytes of weights that one guess of the MTP block reads; 0 without a block.
    pub(crate) fn mtp_bytes_per_token(&self) -> u64 {
        let Some(layer) = mtp_layer(&self.catalog) else { return 0 };
        let block = self.weight_bytes_where(|tensor| tensor.name.starts_with(layer));
        // A block without a head of its own uses the model's.
        let has_head = self.catalog.find(&format!("{layer}nextn.shared_head_head.weight")).is_some();
        let head = if self.catalog.find("output.weight").is_some() { "output.weight" } else { "token_embd.weight" };
        let shared = self.weight_bytes_where(|tensor| !has_head && tensor.name == head);
        block.saturating_add(shared)
    }

    /// The part of [`ModelFiles::weight_bytes_per_token`] that belongs to some tensors.
    pub(crate) fn weight_bytes_where(&self, counts: impl Fn(&LogicalTensor) -> bool) -> u64 {
        let ModelFiles { config, catalog, .. } = self;
        let tied = catalog.find("output.weight").is_none();
        let tensors = catalog.tensors().iter().filter(|tensor| counts(tensor));
        tensors.fold(0, |sum, tensor| {
            let copied = tensor.parts.iter().any(|part| part.order != RowOrder::AsStored);
            let bytes = catalog.storage(tensor).into_iter().fold(0u64, |sum, (stored, (params, bytes))| {
                let width = loaded_width(tensor.class, stored, copied);
                sum.saturating_add(width.map_or(bytes, |width| params.saturating_mul(width)))
            });
            sum.saturating_add(match (tensor.class, &config.moe) {
                (TensorClass::RoutedExpert, Some(moe)) => share(bytes, moe.router.top_k, moe.router.n_experts),
                (TensorClass::Embedding, _) if !tied => share(bytes, 1, config.vocab),
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
