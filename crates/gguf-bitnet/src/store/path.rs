//! Checks of the paths of output files.
//!
//! An output file may lie in any directory that exists.

use std::path::{Path, PathBuf};

use super::disk::parent;
use super::error::StoreError;
use crate::error::{Error, Locate, Result};

/// Checks that `path` can be an output file and returns it with its directory resolved.
///
/// # Errors
/// [`StoreError::BadOutput`] when the path names no file, names a directory, a device or another thing
/// that a rename would destroy, or its directory does not exist.
pub fn output_path(path: &Path) -> Result<PathBuf> {
    let bad = |why| StoreError::BadOutput { why }.in_file(path);
    let text = path.as_os_str().as_encoded_bytes();
    if text.contains(&0) {
        return Err(bad("the path holds a NUL character: remove it"));
    }
    let trailing = text.last().is_some_and(|&b| std::path::is_separator(char::from(b)));
    let Some(name) = path.file_name().filter(|_| !trailing) else {
        return Err(bad("the path does not end in a file name: add one"));
    };
    if path.is_dir() {
        return Err(bad("it is a directory: name a file inside of it"));
    }
    if path.exists() && !path.is_file() {
        return Err(bad("it is a device or a pipe, which a finished file cannot replace: name a file"));
    }
    let dir = parent(path);
    if !dir.is_dir() {
        return Err(bad("its directory does not exist: create it first"));
    }
    let dir = dir.canonicalize().map_err(Error::io("locate", dir))?;
    Ok(dir.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_files_in_directories_that_exist() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        assert_eq!(output_path(&root.join("a.gguf")).unwrap(), root.join("a.gguf"));
        std::fs::create_dir(root.join("sub")).unwrap();
        assert_eq!(output_path(&root.join("sub/../a.gguf")).unwrap(), root.join("a.gguf"));
        for bad in ["", "sub", "sub/", "no/a.gguf", "sub/..", "a.gguf/", "a\0b"] {
            let error = output_path(&root.join(bad)).expect_err(bad);
            assert!(matches!(error.root(), Error::Store(StoreError::BadOutput { .. })), "{bad}: {error}");
        }
        assert!(output_path(Path::new("a.gguf")).unwrap().is_absolute());
        if cfg!(unix) {
            let error = output_path(Path::new("/dev/null")).unwrap_err();
            assert!(matches!(error.root(), Error::Store(StoreError::BadOutput { .. })), "{error}");
        }
    }
}
