//! The digests that the mapped tiles of a network must have before they are computed with.

use std::path::Path;
use std::sync::Arc;

use blake3::Hash;
use tl_kernels::Linear;

use crate::error::{Error, Result};
use crate::storage::error::StorageError;

/// The digests of gate, up and down in a file of tiles.
#[derive(Clone, Debug)]
pub(crate) struct TileDigests {
    /// The file that keeps the tiles.
    pub(crate) cache: Arc<Path>,
    /// `None` for a matrix that is not in the file.
    pub(crate) digests: [Option<Hash>; 3],
}

impl TileDigests {
    /// Checks the tiles of matrix `index`, whose name is `tensor()`; `None` for a matrix that is not in the file.
    pub(crate) fn check(&self, index: usize, linear: &Linear, tensor: impl FnOnce() -> String) -> Option<Result<()>> {
        let digest = self.digests[index]?;
        Some(match blake3::hash(linear.bytes()) == digest {
            true => Ok(()),
            false => {
                Err(Error::Storage(StorageError::DamagedTiles { tensor: tensor(), cache: self.cache.to_path_buf() }))
            }
        })
    }
}
