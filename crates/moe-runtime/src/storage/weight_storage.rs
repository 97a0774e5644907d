//! Where the weights of a model lie in memory: the choice, and its outcome.

use std::path::PathBuf;
use std::sync::Arc;

use crate::storage::expert_memory::{ExpertMemory, ExpertMemoryOptions};
use crate::storage::packing::Packed;
use crate::storage::tile_cache::TileCache;

/// Where weights are computed from. Results are the same to the bit.
#[derive(Clone, Debug, Default)]
pub enum WeightStorage {
    /// From the mapped file, in its layout: starts at once, and the system may drop pages when it needs memory.
    #[default]
    File,
    /// As [`WeightStorage::File`], with routed experts kept within an amount of memory.
    Experts(ExpertMemoryOptions),
    /// From packed tiles, which are read faster than the layout of the file.
    Tiles(Tiles),
}

/// How ternary weights are packed as tiles.
#[derive(Clone, Debug)]
pub struct Tiles {
    /// Layers are packed in order as long as their tiles exceed the mapped weights by at most this many bytes in all; a
    /// packed matrix grows only by the rows that fill up its last tile.
    pub growth_bytes: u64,
    /// File that keeps the tiles for the next start. The tiles are mapped then, so the system may drop them from memory
    /// and read them again. A file that was made from another state of the model, or is damaged, is replaced; where no
    /// file can be made, weights are packed in memory.
    pub cache: Option<PathBuf>,
}

/// Where the weights of a loaded model lie.
#[derive(Debug)]
pub enum StorageReport {
    /// In the mapped file; also for bounded experts when all of them fit their memory.
    File,
    /// In the mapped file, with routed experts within an amount of memory.
    Experts(Arc<ExpertMemory>),
    /// In tiles that were packed or mapped.
    Tiles {
        /// The extent of the packing.
        packed: Packed,
        /// The file of the tiles, if one was asked for.
        cache: Option<TileCache>,
    },
}
