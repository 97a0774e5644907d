//! The bytes that one decoded token reads from memory. Divided by the memory bandwidth they bound the decoding speed.
//!
//! **Invariant:** only bytes that every step must read count: all matrices that every token passes through, of the routed
//! experts the share that one token chooses, and one row of the embedding. The cache comes on top, position by position
//! ([`mla_attention::CompressedMlaCache::bytes_per_token`]).

use gguf_bitnet::{RowOrder, TensorClass};

use crate::load::files::ModelFiles;
use crate::load::memory_plan::loaded_width;

impl ModelFiles {
    /// Bytes of weights that one decoded token reads, in the types they have after loading. Ternary weights count as they
    /// are in the file, also where they lie in memory as tiles.
    #[must_use]
    pub fn weight_bytes_per_token(&self) -> u64 {
        self.weight_bytes_where(|_| true)
    }

    /// The part of [`ModelFiles::weight_bytes_per_token`] that belongs to tensors of some classes.
    pub(crate) fn weight_bytes_where(&self, counts: impl Fn(TensorClass) -> bool) -> u64 {
        let ModelFiles { config, catalog, .. } = self;
        let tied = catalog.find("output.weight").is_none();
        let tensors = catalog.tensors().iter().filter(|tensor| counts(tensor.class));
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
