//! Where weights lie in memory: the mapped file, packed tiles and their cache on disk, experts larger than memory.

pub(crate) mod error;
pub(crate) mod expert_memory;
pub(crate) mod packing;
pub(crate) mod tile_cache;
pub(crate) mod tile_digests;
pub(crate) mod weight_storage;

pub use error::{StorageError, TileCacheDefect};
pub use expert_memory::{CachePolicy, CacheStatistics, ExpertKey, ExpertMemory, ExpertMemoryOptions, Prefetcher};
pub use packing::Packed;
pub use tile_cache::TileCache;
pub use weight_storage::{StorageReport, Tiles, WeightStorage};
