//! Where weights are computed from: one of four places, each with its own settings.

use std::path::PathBuf;

use moe_runtime::storage::ExpertMemoryOptions;
use tl_kernels::KernelKind;

/// Where weights are computed from.
#[derive(Clone, Debug)]
pub(crate) enum Placement {
    /// The mapped file, as it is.
    File,
    /// The mapped file, with a limit on the memory of routed experts.
    BoundedExperts(ExpertMemoryOptions),
    /// Ternary weights as tiles in memory. With `required`, every layer unless `memory` forbids it, and a note tells of
    /// layers that were left; else as many layers as the free memory holds.
    Tiles { required: bool, cache: Option<TileFile> },
    /// Tables of the look-up kernel TL1 or TL2 beside the mapped file.
    Lookup(KernelKind),
}

/// The file that keeps tiles for the next start.
#[derive(Clone, Debug)]
pub(crate) enum TileFile {
    /// The model's own name with `.tiles` behind it.
    BesideModel,
    At(PathBuf),
}
