//! From the placement that the user asked for to the storage of the weights, and the notes about the result.

use std::path::{Path, PathBuf};

use moe_runtime::storage::{StorageReport, TileCache, Tiles, WeightStorage};
use moe_runtime::{CraftsmanModel, MemoryPlan, ModelFiles};

use super::placement::{Placement, TileFile};
use crate::output::{self, size};

/// The storage of a model that takes `plan` without tiles, within `memory` where that is given.
pub(super) fn storage(
    placement: &Placement,
    files: &ModelFiles,
    plan: &MemoryPlan,
    memory: Option<u64>,
) -> WeightStorage {
    let (required, cache) = match placement {
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
        gguf_bitnet::output_path(&path).unwrap_or(path)
    });
    WeightStorage::Tiles(Tiles { growth_bytes, cache })
}

/// Notes a file of tiles that was made or could not be used, and layers that do not fit the memory.
pub(super) fn note_result(
    model: &CraftsmanModel,
    asked: &WeightStorage,
    memory: Option<u64>,
    all_layers_required: bool,
) {
    let (StorageReport::Tiles { packed, cache }, WeightStorage::Tiles(tiles)) = (model.storage(), asked) else {
        return;
    };
    match (cache, &tiles.cache) {
        (Some(TileCache::Made { bytes, replaced }), Some(path)) => {
            let why = replaced.as_ref().map_or_else(String::new, |error| format!(" anew: {error}"));
            output::note(format_args!("note: made {} ({}){why}", path.display(), size(*bytes)));
        }
        (Some(TileCache::None { reason }), _) => {
            output::note(format_args!("note: weights are packed in memory: {reason}"));
        }
        _ => {}
    }
    if memory.is_some() && packed.growth_bytes > 0 {
        output::note(format_args!("memory: packed weights take {} more", size(packed.growth_bytes)));
    }
    if packed.layers_left > 0 && all_layers_required {
        output::note(format_args!(
            "note: {} of {} layers keep the layout of the file; more memory than {} would pack them",
            packed.layers_left,
            packed.layers + packed.layers_left,
            memory.map_or_else(|| "there is".to_owned(), size)
        ));
    }
}

/// The model's own name with `.tiles` behind it.
fn beside(files: &ModelFiles) -> PathBuf {
    let mut name = files.path().as_os_str().to_owned();
    name.push(".tiles");
    PathBuf::from(name)
}

/// Bytes that the system can give without paging; `None` on a system without `/proc/meminfo`.
pub(crate) fn available_bytes() -> Option<u64> {
    let text = gguf_bitnet::read_text(Path::new("/proc/meminfo"), 1 << 20).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
