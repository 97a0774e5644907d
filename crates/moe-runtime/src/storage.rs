//! Where weights lie in memory: packed tiles, their cache on disk, and experts larger than memory.

pub(crate) mod expert_memory;
pub(crate) mod packing;
pub(crate) mod tile_cache;
