//! `--layout`: where ternary weights are computed from.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use moe_runtime::storage::{StorageReport, TileCache, Tiles, WeightStorage};
use moe_runtime::{CraftsmanModel, LoadOptions, MemoryPlan, ModelFiles};
use tl_kernels::KernelKind;

use crate::model::Experts;
use crate::progress::{Unit, bar};
use crate::{model, output, size};

/// Layout of ternary weights in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Layout {
    /// Packed where the memory allows (that of --memory, else what the system has free): then the whole file is read
    /// at the start
    Auto,
    /// As the file has them, mapped: starts at once, and the system may drop what it needs room for
    File,
    /// As tiles in memory: read whole at start, then faster
    Packed,
    /// For comparisons, as the kernel TL1 reads them (2 bits per weight), in memory beside the mapped file
    Tl1,
    /// For comparisons, as the kernel TL2 reads them (5 bits per 3 weights), in memory beside the mapped file
    Tl2,
}

/// The choice of a layout.
#[derive(Clone, Debug, Args)]
pub(crate) struct LayoutArgs {
    /// Layout of ternary weights in memory
    #[arg(long, value_enum, default_value = "auto")]
    layout: Layout,
    /// Keep packed weights in a file, by default MODEL.tiles, which later starts map instead of packing again. It takes
    /// about as much of the disk as the model itself
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    layout_cache: Option<Option<PathBuf>>,
}

impl LayoutArgs {
    /// The kernel that the layout is for, where it has one that is chosen when the model is loaded.
    pub(crate) fn kernel(&self) -> Option<KernelKind> {
        match self.layout {
            Layout::Tl1 => Some(KernelKind::Tl1),
            Layout::Tl2 => Some(KernelKind::Tl2),
            Layout::Auto | Layout::File | Layout::Packed => None,
        }
    }

    /// Refuses what does not go together, before weights are read.
    pub(crate) fn check(&self, memory: Option<u64>, experts: Experts) -> Result<()> {
        let packs = matches!(self.layout, Layout::Auto | Layout::Packed) && !experts.are_bounded();
        if self.layout_cache.is_some() && !packs {
            bail!("--layout-cache keeps packed weights, so it needs --layout packed or auto and no --expert-memory");
        }
        if experts.are_bounded() && !matches!(self.layout, Layout::Auto | Layout::File) {
            bail!("weights in a layout of their own stay in memory, so --expert-memory needs --layout file or auto");
        }
        if memory.is_some() && self.kernel().is_some() {
            bail!("the layouts tl1 and tl2 lie in memory twice, so --memory needs --layout auto, file or packed");
        }
        Ok(())
    }

    /// Where the weights of a model lie whose experts are not bounded: packed as far as was asked for and `plan` fits the
    /// memory.
    pub(crate) fn storage(&self, files: &ModelFiles, plan: &MemoryPlan, memory: Option<u64>) -> WeightStorage {
        let growth = match self.layout {
            Layout::File | Layout::Tl1 | Layout::Tl2 => None,
            Layout::Auto => memory.or_else(available_bytes).and_then(|bytes| bytes.checked_sub(plan.total_bytes())),
            Layout::Packed => Some(memory.map_or(u64::MAX, |bytes| bytes.saturating_sub(plan.total_bytes()))),
        };
        let Some(growth_bytes) = growth else { return WeightStorage::File };
        WeightStorage::Tiles(Tiles { growth_bytes, cache: self.cache_path(files) })
    }

    fn cache_path(&self, files: &ModelFiles) -> Option<PathBuf> {
        self.layout_cache.as_ref().map(|path| path.clone().unwrap_or_else(|| beside(files)))
    }

    /// Loads a model, with a bar while a file of tiles is made.
    pub(crate) fn load(&self, files: &ModelFiles, options: &LoadOptions) -> Result<CraftsmanModel> {
        let bar = bar(0, Unit::Bytes, "making the layout cache");
        let mut progress = |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        };
        let model = model::load_tested(files, options, &mut progress);
        bar.finish_and_clear();
        model
    }

    /// Tells how a model was packed, where that is not what was asked for or takes more memory.
    pub(crate) fn note_storage(&self, model: &CraftsmanModel, files: &ModelFiles, memory: Option<u64>) {
        let StorageReport::Tiles { packed, cache } = model.storage() else { return };
        match (cache, self.cache_path(files)) {
            (Some(TileCache::Made { bytes, replaced }), Some(path)) => {
                let why = replaced.as_ref().map_or_else(String::new, |error| format!(" anew: {error}"));
                output::note(format_args!("note: made {} ({}){why}", path.display(), size::show(*bytes)));
            }
            (Some(TileCache::None { reason }), _) => {
                output::note(format_args!("note: weights are packed in memory: {reason}"));
            }
            _ => {}
        }
        if memory.is_some() && packed.growth_bytes > 0 {
            output::note(format_args!("memory: packed weights take {} more", size::show(packed.growth_bytes)));
        }
        if packed.layers_left > 0 && self.layout == Layout::Packed {
            output::note(format_args!(
                "note: {} of {} layers keep the layout of the file; more memory than {} would pack them",
                packed.layers_left,
                packed.layers + packed.layers_left,
                memory.map_or_else(|| "there is".to_owned(), size::show)
            ));
        }
    }
}

/// The model's own name with `.tiles` behind it.
fn beside(files: &ModelFiles) -> PathBuf {
    let mut name = files.path().as_os_str().to_owned();
    name.push(".tiles");
    PathBuf::from(name)
}

/// What the system could give without paging, where it tells.
fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
