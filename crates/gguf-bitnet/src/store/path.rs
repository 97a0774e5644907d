//! Checks of the paths of output files, and the places that links among them name.
//!
//! An output file may lie in any directory that exists. An output that is a link is written where the link points, so
//! that the link stays a link and the bytes go to the disk that it names.

use std::path::{Path, PathBuf};

use super::disk::parent;
use super::error::StoreError;
use crate::error::{Error, Locate, Result};

/// Most links that are followed one after the other, as on Linux.
const MAX_LINKS: usize = 40;

/// Checks that `path` can be an output file and returns the file that it names, through links, with its directory
/// resolved.
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
    if path.file_name().is_none() || trailing {
        return Err(bad("the path does not end in a file name: add one"));
    }
    if path.is_dir() {
        return Err(bad("it is a directory: name a file inside of it"));
    }
    if path.exists() && !path.is_file() {
        return Err(bad("it is a device or a pipe, which a finished file cannot replace: name a file"));
    }
    let target = link_target(path)?;
    let Some(name) = target.file_name() else {
        return Err(bad("the link does not end in a file name: let it point to a file"));
    };
    let dir = parent(&target);
    if !dir.is_dir() {
        let why = "its directory does not exist: create it first";
        return Err(StoreError::BadOutput { why }.in_file(&target));
    }
    let dir = dir.canonicalize().map_err(Error::io("locate", dir))?;
    Ok(dir.join(name))
}

/// The place that `path` names through links; `path` itself where it is no link. The place need not exist.
///
/// # Errors
/// [`StoreError::BadOutput`] for links in a circle.
pub fn link_target(path: &Path) -> Result<PathBuf> {
    let mut place = path.to_owned();
    for _ in 0..MAX_LINKS {
        match std::fs::read_link(&place) {
            Ok(next) => place = parent(&place).join(next),
            // No link, or nothing is there yet.
            Err(_) => return Ok(place),
        }
    }
    Err(StoreError::BadOutput { why: "it is a link that leads back to itself: remove it" }.in_file(path))
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

    #[cfg(unix)]
    #[test]
    fn a_link_stands_for_the_place_it_points_to() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("disk")).unwrap();
        // A link to a link to a file that is not there yet, with relative and absolute targets.
        symlink(root.join("second"), root.join("first")).unwrap();
        symlink("disk/a.gguf", root.join("second")).unwrap();
        assert_eq!(output_path(&root.join("first")).unwrap(), root.join("disk/a.gguf"));
        std::fs::write(root.join("disk/a.gguf"), "old").unwrap();
        assert_eq!(output_path(&root.join("first")).unwrap(), root.join("disk/a.gguf"));
        // The directory of the output may be a link too.
        symlink("disk", root.join("folder")).unwrap();
        assert_eq!(output_path(&root.join("folder/b.gguf")).unwrap(), root.join("disk/b.gguf"));

        for (name, target) in
            [("circle", "circle"), ("lost", "no/such/a.gguf"), ("up", "disk/.."), ("null", "/dev/null")]
        {
            symlink(target, root.join(name)).unwrap();
            let error = output_path(&root.join(name)).expect_err(name);
            assert!(matches!(error.root(), Error::Store(StoreError::BadOutput { .. })), "{name}: {error}");
        }
    }
}
