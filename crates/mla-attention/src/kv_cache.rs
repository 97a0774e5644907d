//! The caches of attention: the rows that it keeps of earlier positions.
//!
//! ```text
//! latent attention    one row per position:  [ normalised latent c | rotated shared key k_pe ]
//!                                               kv_lora               qk_rope
//! grouped queries     two rows per position: [ rotated keys of all kv heads ] and [ values ]
//! ```
//!
//! GLM-4.7-Flash keeps 576 values per position and layer this way, instead of 20 heads x (256 + 256): 54,144 bytes per
//! token over 47 layers at F16, 30,268 at I8.
//!
//! A sequence holds its positions in blocks of 64, each of which has all layers (layout.rs). Sequences with a common
//! beginning share its blocks.
//!
//! **Invariant**: a cache holds positions `0 .. len` without a gap. Memory for `n_ctx` positions is reserved when the
//! cache is created; an append beyond `n_ctx` is an error and changes nothing.
//!
//! **Invariant**: a block that two holders share does not change.

mod block;
mod cache_type;
mod compressed;
mod error;
mod layout;
mod shape;

pub use block::CacheBlock;
pub(crate) use block::CachedFloat;
pub use cache_type::CacheType;
pub use compressed::CompressedMlaCache;
pub use error::CacheError;
pub use layout::CacheLayout;
pub use shape::CacheShape;
pub(crate) use shape::check_shape;
