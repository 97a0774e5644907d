//! Files that are opened for reading, and parts of them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::{Error, Result};

/// Opens a file; a folder, a pipe or a device is an error.
pub(super) fn open(path: &Path) -> Result<File> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::other("it is no file")));
    }
    File::open(path).map_err(failed)
}

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
