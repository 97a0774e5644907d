//! The notes about where the weights of a loaded model lie.

use moe_runtime::CraftsmanModel;
use moe_runtime::storage::{StorageReport, TileCache, WeightStorage};

use crate::output::{self, size};

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
