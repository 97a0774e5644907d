//! GGUF metadata: typed keys of one architecture, readers that architectures share, and the writer.
//!
//! Rules that a reader cannot guess from the key names:
//!
//! - `block_count` includes MTP blocks: trunk layers = `block_count` - `nextn_predict_layers`.
//! - Latent attention in the split form exactly if both `key_length_mla` and `value_length_mla` exist; older files give
//!   the head widths as `key_length` and `value_length` and one key-value head per query head.
//! - `expert_gating_func`: 1 softmax, 2 sigmoid, 0 as if missing; each architecture has its own default.
//! - `expert_weights_scale` missing or 0 means 1; `expert_weights_norm` missing means false.

mod keys;
pub(crate) mod read;
mod write;

pub(crate) use keys::{GgufKeys, TensorFacts};
