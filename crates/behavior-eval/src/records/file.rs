//! Parts of files.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::{Error, Result};

/// Reads `len` bytes from `at` on. The caller has checked that the file at `path` holds them.
pub(super) fn read_at(mut file: &File, path: &Path, at: u64, len: u64) -> Result<Vec<u8>> {
    let mut read = || {
        let mut bytes = vec![0; usize::try_from(len).map_err(std::io::Error::other)?];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| Error::File { path: path.to_owned(), source })
}
