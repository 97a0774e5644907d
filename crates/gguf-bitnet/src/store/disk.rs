//! Disk operations beyond reading and writing: free space, atomic replacement of small files, and flushed
//! directories, whose entries survive a power cut.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

#[cfg(not(target_family = "wasm"))]
use fs4::available_space;

use super::error::StoreError;
use crate::error::{Error, Locate, Result};

/// Bytes free for this user on the disk that holds `path`, which need not exist yet.
///
/// # Errors
/// [`StoreError::Io`] when the system does not report it.
fn free_space(path: &Path) -> Result<u64> {
    let absolute = std::path::absolute(path).map_err(Error::io("locate", path))?;
    let existing = absolute.ancestors().find(|place| place.exists()).unwrap_or(&absolute);
    available_space(existing).map_err(Error::io("measure the free space at", existing))
}

/// WASM has no disk.
#[cfg(target_family = "wasm")]
fn available_space(_: &Path) -> std::io::Result<u64> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Checks that `need` more bytes fit on the disk that holds `path`.
///
/// # Errors
/// [`StoreError::NotEnoughSpace`] with both numbers when they do not.
pub fn require_space(path: &Path, need: u64) -> Result<()> {
    let have = free_space(path)?;
    if have < need {
        return Err(StoreError::NotEnoughSpace { need, have }.in_file(path));
    }
    Ok(())
}

/// Checks that a finished file may take the name `path`: a file lies there, or nothing.
///
/// # Errors
/// [`StoreError::BadOutput`] for a link, a directory, a device or a pipe, which a rename would destroy.
pub(super) fn check_replaceable(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
        let why = "it is a link, a directory, a device or a pipe, which a finished file cannot replace: name a file";
        return Err(StoreError::BadOutput { why }.in_file(path));
    }
    Ok(())
}

/// Writes a small file so that a crash leaves either its old or its new content: a
/// sibling temporary file, flushed to the disk, is renamed over `path`.
///
/// # Errors
/// [`StoreError::BadOutput`] where the path is no file, or [`StoreError::Io`]; the file is then as it was.
pub fn write_atomic(path: &Path, content: &[u8]) -> Result<()> {
    check_replaceable(path)?;
    let temporary = with_suffix(path, ".tmp");
    let write = || -> std::io::Result<()> {
        let mut file = create_temporary(&temporary)?;
        file.write_all(content)?;
        file.sync_all()
    };
    let written = write()
        .map_err(Error::io("write", &temporary))
        .and_then(|()| fs::rename(&temporary, path).map_err(Error::io("replace", path)));
    if let Err(error) = written {
        // A failed removal is ignored: the error below is the one to report.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_dir(parent(path))
}

/// Creates a file that no other has, to be renamed when it is complete. Remains of a stopped process give way, and a link of
/// the name is removed, not followed.
pub(crate) fn create_temporary(path: &Path) -> std::io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::create_new(path)
}

/// Flushes a directory, so that renames and new files in it survive a power cut.
///
/// # Errors
/// [`StoreError::Io`].
pub fn sync_dir(dir: &Path) -> Result<()> {
    // Only Unix systems open directories as files; elsewhere renames are durable by themselves.
    if cfg!(unix) {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("flush", dir))?;
    }
    Ok(())
}

/// The directory a path lies in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// `path` with `suffix` behind its whole name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_disk_holds_is_refused_with_both_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("not/yet/there.gguf");
        require_space(&out, 1).unwrap();
        let error = require_space(&out, u64::MAX).unwrap_err();
        assert!(matches!(error.root(), Error::Store(StoreError::NotEnoughSpace { need: u64::MAX, have }) if *have > 0));
        assert!(error.to_string().contains("there.gguf"), "{error}");
    }

    #[test]
    fn small_files_are_replaced_whole_and_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        // A link of the temporary name is not followed.
        #[cfg(unix)]
        {
            let precious = dir.path().join("precious");
            fs::write(&precious, "kept").unwrap();
            std::os::unix::fs::symlink(&precious, dir.path().join("a.json.tmp")).unwrap();
            write_atomic(&path, b"three").unwrap();
            assert_eq!((fs::read(&path).unwrap(), fs::read(&precious).unwrap()), (b"three".to_vec(), b"kept".to_vec()));
            fs::remove_file(precious).unwrap();
        }

        let blocked = dir.path().join("directory");
        fs::create_dir(&blocked).unwrap();
        assert!(write_atomic(&blocked, b"three").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);

        // A link is neither replaced nor followed.
        #[cfg(unix)]
        {
            let link = dir.path().join("link");
            std::os::unix::fs::symlink("/dev/null", &link).unwrap();
            let error = write_atomic(&link, b"four").unwrap_err();
            assert!(matches!(error.root(), Error::Store(StoreError::BadOutput { .. })), "{error}");
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        }
    }
}
