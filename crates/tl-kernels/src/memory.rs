//! Memory for weights and buffers: aligned to cache lines, or to huge pages.

mod aligned;
mod arena;

pub(crate) use aligned::{AlignedBuffer, CACHE_LINE_BYTES};
pub use arena::Arena;
