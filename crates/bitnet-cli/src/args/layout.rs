//! `--layout` and `--layout-cache`: where ternary weights are computed from.

use std::path::PathBuf;

use clap::ValueEnum;
use moe_runtime::storage::ExpertMemoryOptions;
use moe_runtime::{Placement, TileFile};
use tl_kernels::KernelKind;

use super::path::path_not_stream;
use crate::exit::UsageError;

const LAYOUT_CACHE: &str = "weights are mapped from a file and cannot go to standard output: write the name of a file";

#[derive(Clone, Debug, clap::Args)]
pub(super) struct LayoutArgs {
    /// Layout of ternary weights in memory
    #[arg(long, value_enum, default_value = "auto")]
    layout: Layout,
    /// Keep packed weights in a file, by default MODEL.tiles, which later starts map instead of packing again. It takes
    /// about as much of the disk as the model itself
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, value_parser = path_not_stream(LAYOUT_CACHE))]
    layout_cache: Option<Option<PathBuf>>,
}

/// Layout of ternary weights in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Layout {
    /// Packed as far as the memory allows (--memory, or else the free memory of the system); packing reads the whole
    /// file at the start
    Auto,
    /// As in the file, mapped: starts at once, and the system may drop pages when it needs memory
    File,
    /// As tiles in memory: the whole file is read at the start, and the model then runs faster
    Packed,
    /// For comparisons, as the kernel TL1 reads them (2 bits per weight), in memory beside the mapped file
    Tl1,
    /// For comparisons, as the kernel TL2 reads them (5 bits per 3 weights), in memory beside the mapped file
    Tl2,
}

impl LayoutArgs {
    /// The place of the weights, given a limit on the memory of `experts` and on that of the program.
    ///
    /// # Errors
    /// Options that exclude each other.
    pub(super) fn placement(
        &self,
        experts: Option<ExpertMemoryOptions>,
        memory: Option<u64>,
    ) -> Result<Placement, UsageError> {
        let packs = matches!(self.layout, Layout::Auto | Layout::Packed) && experts.is_none();
        let cache = match &self.layout_cache {
            None => None,
            Some(_) if !packs => {
                return Err(UsageError::new(
                    "--layout-cache keeps packed weights, so it needs --layout packed or auto and no --expert-memory",
                ));
            }
            Some(None) => Some(TileFile::BesideModel),
            Some(Some(path)) => Some(TileFile::At(path.clone())),
        };
        match (self.layout, experts) {
            (Layout::Auto | Layout::File, Some(options)) => Ok(Placement::BoundedExperts(options)),
            (_, Some(_)) => Err(UsageError::new(
                "weights in a layout of their own stay in memory, so --expert-memory needs --layout file or auto",
            )),
            (Layout::File, None) => Ok(Placement::File),
            (Layout::Auto, None) => Ok(Placement::Tiles { required: false, cache }),
            (Layout::Packed, None) => Ok(Placement::Tiles { required: true, cache }),
            (Layout::Tl1 | Layout::Tl2, None) if memory.is_some() => Err(UsageError::new(
                "the layouts tl1 and tl2 lie in memory twice, so --memory needs --layout auto, file or packed",
            )),
            (Layout::Tl1, None) => Ok(Placement::Lookup(KernelKind::Tl1)),
            (Layout::Tl2, None) => Ok(Placement::Lookup(KernelKind::Tl2)),
        }
    }
}
