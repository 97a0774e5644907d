//! The caches of attention: the rows that it keeps of earlier positions.
//!
//! ```text
//! LatentCache   one row per position:  [ normalised latent c | rotated shared key k_pe ]
//!                                        kv_lora               qk_rope
//! KvCache       two rows per position: [ rotated keys of all kv heads ] and [ values ]
//! ```
//!
//! GLM-4.7-Flash keeps 576 values per position and layer this way, instead of 20 heads x (256 + 256): 54,144 bytes per
//! token over 47 layers at F16, 30,268 at I8.
//!
//! **Invariant**: a cache holds positions `0 .. len` without a gap. Memory for `n_ctx` positions is reserved when the
//! cache is created; an append beyond `n_ctx` is an error and changes nothing.

mod cache_type;
mod compressed;
mod error;
mod float_rows;
mod int8_latents;
mod key_value;
mod latent;
mod layer;
mod shape;

pub use cache_type::CacheType;
pub use compressed::CompressedMlaCache;
pub use error::CacheError;
pub(crate) use float_rows::{FloatRows, FloatSlice};
pub(crate) use int8_latents::Int8Latents;
pub use key_value::KvCache;
pub use latent::LatentCache;
pub(crate) use latent::LatentRows;
pub use layer::LayerCache;
pub use shape::CacheShape;
pub(crate) use shape::check_shape;
