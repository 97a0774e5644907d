//! Failures of packed weights, of the files that keep them, and of the folder of a prompt cache.

use std::path::{Path, PathBuf};

/// Tiles, or a folder, that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message names its fields")]
pub enum StorageError {
    /// A file of tiles that cannot be used.
    #[error("the layout cache {} {defect}", path.display())]
    TileCache { path: PathBuf, defect: TileCacheDefect },
    /// Tiles that do not match the digest that was written with them.
    #[error(
        "the tiles of `{tensor}` in the layout cache {} are damaged; delete that file, the next start makes it anew",
        cache.display()
    )]
    DamagedTiles { tensor: String, cache: PathBuf },
    /// The folder of a prompt cache cannot be made or listed.
    #[error("the folder {} for the prompt cache cannot be used: {source}; give another one", path.display())]
    PromptCache { path: PathBuf, source: std::io::Error },
    /// Tiles that were just packed and failed their self-test.
    #[error(
        "the tiles of layer {layer} fail their self-test on this machine; please report `bitnet doctor --model FILE`"
    )]
    UntestedTiles { layer: usize },
}

/// The defect of a file of tiles.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TileCacheDefect {
    /// The name belongs to a file of another kind.
    #[error("is a file of another kind, which is kept; give the cache another name")]
    Foreign,
    /// The key of the file differs from the key of the model.
    #[error("was made from another model, from another state of its file, or by another version")]
    OtherModel,
    /// The file was cut off or grew.
    #[error("has {got} bytes instead of {expected}")]
    Length {
        /// Bytes that the model's tiles take with their header.
        expected: u64,
        /// Bytes of the file.
        got: u64,
    },
    /// A digest differs from its data.
    #[error("is damaged")]
    Damaged,
    /// The self-test found other numbers than in the rows of the model.
    #[error("holds other weights than the model")]
    OtherRows,
    /// The model did not come from a GGUF file.
    #[error("cannot be made: only GGUF files have one")]
    NoFile,
    /// There are no tiles to keep.
    #[error("is not needed: there are no ternary weights to pack, or activations are not quantised")]
    NoTiles,
}

impl TileCacheDefect {
    /// The failure of the file `path`.
    pub(crate) fn at(self, path: &Path) -> StorageError {
        StorageError::TileCache { path: path.to_owned(), defect: self }
    }
}
