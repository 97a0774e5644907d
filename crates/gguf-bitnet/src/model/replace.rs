//! A GGUF file that takes its name only after it was written, opened again and found right.
//!
//! **Invariant:** the file at the path is as it was, or the checked one.

use std::fs::{File, Permissions};
use std::io::BufWriter;
use std::path::Path;

use crate::error::{Error, Result};
use crate::gguf::GgufFile;
use crate::store::disk::{create_temporary, parent, sync_dir, with_suffix};

/// Writes a file with the permissions of the one that it replaces, has it checked, and gives it the name `path`.
///
/// # Errors
/// The errors of `write` and `check`, and of the disk; the file at `path` is then as it was.
pub(super) fn replace_checked(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
    check: impl FnOnce(&GgufFile) -> Result<()>,
) -> Result<()> {
    let copy = &with_suffix(path, ".rewrite.tmp");
    let written = (move || {
        let out = create_temporary(copy).map_err(Error::io("create", copy))?;
        if let Some(permissions) = permissions_of(path)? {
            out.set_permissions(permissions).map_err(Error::io("prepare", copy))?;
        }
        let mut out = BufWriter::with_capacity(1 << 20, out);
        write(&mut out)?;
        let out = out.into_inner().map_err(|e| Error::io("write", copy)(e.into_error()))?;
        out.sync_all().map_err(Error::io("write", copy))?;
        drop(out);
        let written = GgufFile::open(copy)?;
        check(&written)?;
        // Windows cannot replace a file that is open.
        drop(written);
        std::fs::rename(copy, path).map_err(Error::io("replace", path))?;
        sync_dir(parent(path))
    })();
    written.map_err(|error| {
        // After a successful rename there is no copy to remove, so a failure is ignored.
        let _ = std::fs::remove_file(copy);
        error.in_file(path)
    })
}

/// The permissions of a file, if there is one.
fn permissions_of(path: &Path) -> Result<Option<Permissions>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.permissions())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("examine", path)(error)),
    }
}
