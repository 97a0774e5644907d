//! Where weights are computed from, as a user asks for it: one of four places, each with its own settings.

use std::path::PathBuf;

use gguf_bitnet::{available_bytes, output_path};
use tl_kernels::KernelKind;

use crate::load::files::ModelFiles;
use crate::load::memory_plan::MemoryPlan;
use crate::storage::expert_memory::ExpertMemoryOptions;
use crate::storage::weight_storage::{Tiles, WeightStorage};

/// Where weights are computed from.
#[derive(Clone, Debug)]
pub enum Placement {
    /// The mapped file, as it is.
    File,
    /// The mapped file, with a limit on the memory of routed experts.
    BoundedExperts(ExpertMemoryOptions),
    /// Ternary weights as tiles in memory.
    Tiles {
        /// Whether every layer is packed unless a limit on the memory forbids it; else as many as the free memory holds.
        required: bool,
        /// The file that keeps the tiles for the next start.
        cache: Option<TileFile>,
    },
    /// Tables of the look-up kernel TL1 or TL2 beside the mapped file.
    Lookup(KernelKind),
}

/// The file that keeps tiles for the next start.
#[derive(Clone, Debug)]
pub enum TileFile {
    /// The model's own name with `.tiles` behind it.
    BesideModel,
    /// A file of another name.
    At(PathBuf),
}

impl Placement {
    /// The storage of a model that takes `plan` without tiles, within `memory` bytes where a limit is given.
    #[must_use]
    pub fn storage(&self, files: &ModelFiles, plan: &MemoryPlan, memory: Option<u64>) -> WeightStorage {
        let (required, cache) = match self {
            Placement::File | Placement::Lookup(_) => return WeightStorage::File,
            Placement::BoundedExperts(options) => return WeightStorage::Experts(*options),
            Placement::Tiles { required, cache } => (*required, cache),
        };
        let growth = match memory {
            memory if required => Some(memory.map_or(u64::MAX, |bytes| bytes.saturating_sub(plan.total_bytes()))),
            memory => memory.or_else(available_bytes).and_then(|bytes| bytes.checked_sub(plan.total_bytes())),
        };
        let Some(growth_bytes) = growth else { return WeightStorage::File };
        let cache = cache.as_ref().map(|cache| {
            let path = match cache {
                TileFile::At(path) => path.clone(),
                TileFile::BesideModel => beside(files),
            };
            // Where the path cannot be an output, the load says so.
            output_path(&path).unwrap_or(path)
        });
        WeightStorage::Tiles(Tiles { growth_bytes, cache })
    }
}

/// The model's own name with `.tiles` behind it.
fn beside(files: &ModelFiles) -> PathBuf {
    let mut name = files.path().as_os_str().to_owned();
    name.push(".tiles");
    PathBuf::from(name)
}
