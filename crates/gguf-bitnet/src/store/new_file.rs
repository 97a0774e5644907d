//! A large file that appears under its name only when it is complete.
//!
//! **Invariant:** until [`NewFile::publish`] has succeeded, the target is as it was. On Linux the data have no
//! name until then (`O_TMPFILE`), so that a killed process leaves nothing behind; on other systems, and on file
//! systems without this feature, they lie in a sibling file that is removed when the value is dropped.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::{check_replaceable, create_temporary, parent, sync_dir, with_suffix};
use crate::error::{Error, Result};

/// A file that is being written and has not taken its name yet.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    target: PathBuf,
    /// A name beside the target that no other writer uses.
    temporary: PathBuf,
    /// Whether the data lie under that name.
    named: bool,
}

impl NewFile {
    /// Begins the file that will be published as `target`.
    ///
    /// # Errors
    /// [`StoreError::BadOutput`](crate::StoreError::BadOutput) where a link, a device or another thing that is no file has the
    /// name, [`StoreError::Io`](crate::StoreError::Io) where its directory does not take new files.
    pub fn create(target: &Path) -> Result<NewFile> {
        check_replaceable(target)?;
        let temporary = with_suffix(target, &temporary_suffix());
        match unnamed(parent(target)) {
            Some(file) => Ok(NewFile { file, target: target.to_owned(), temporary, named: false }),
            None => NewFile::named(target, temporary),
        }
    }

    /// Begins a file whose data lie under the name `temporary`.
    fn named(target: &Path, temporary: PathBuf) -> Result<NewFile> {
        let file = create_temporary(&temporary).map_err(Error::io("create", &temporary))?;
        Ok(NewFile { file, target: target.to_owned(), temporary, named: true })
    }

    /// Flushes the data to the disk and gives them the name of the target, replacing a file of that name.
    ///
    /// # Errors
    /// [`StoreError::Io`](crate::StoreError::Io); the target is then as it was.
    pub fn publish(mut self) -> Result<()> {
        self.file.sync_all().map_err(Error::io("write", &self.target))?;
        self.take_name()?;
        sync_dir(parent(&self.target))
    }

    /// As [`NewFile::publish`] without waiting for the disk: after a failure of the power the file may be incomplete, so its
    /// content must tell.
    ///
    /// # Errors
    /// As [`NewFile::publish`].
    pub fn publish_unsynced(mut self) -> Result<()> {
        self.take_name()
    }

    /// As [`NewFile::publish`], but a file that has the name keeps it, also where another machine gave it the name at the same
    /// moment. Returns whether the data took the name. On a file system without hard links the last of several machines wins.
    ///
    /// # Errors
    /// As [`NewFile::publish`].
    pub fn publish_unless_taken(mut self) -> Result<bool> {
        self.file.sync_all().map_err(Error::io("write", &self.target))?;
        // A link is made in one step and replaces nothing.
        let linked = match self.named {
            true => fs::hard_link(&self.temporary, &self.target),
            false => link(&self.file, &self.target),
        };
        match linked {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(_) if self.target.exists() => return Ok(false),
            // A file system without links.
            Err(_) => self.take_name()?,
        }
        sync_dir(parent(&self.target))?;
        Ok(true)
    }

    fn take_name(&mut self) -> Result<()> {
        if !self.named {
            link(&self.file, &self.temporary).map_err(Error::io("name", &self.target))?;
            self.named = true;
        }
        fs::rename(&self.temporary, &self.target).map_err(Error::io("replace", &self.target))?;
        self.named = false;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.named {
            // A failed removal is ignored: the caller has the error that ended the writing.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for NewFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// The end of a temporary name. Machines that share a folder can have equal process numbers, so a random number tells them apart.
fn temporary_suffix() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    // The keys of a `RandomState` come from the random source of the system.
    format!(".{process}-{count}-{:016x}.tmp", RandomState::new().hash_one(process))
}

/// A file in `dir` that has no name, where the system has such files.
#[cfg(target_os = "linux")]
fn unnamed(dir: &Path) -> Option<File> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    // `link` names the file by its path in /proc.
    let nameable = Path::new("/proc/self/fd").is_dir();
    nameable.then(|| open(dir, flags, Mode::from_raw_mode(0o666)).ok().map(File::from))?
}

/// Gives a file without a name the name `name`.
#[cfg(target_os = "linux")]
fn link(file: &File, name: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    use std::os::fd::AsRawFd;
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, unnamed, CWD, name, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(not(target_os = "linux"))]
fn unnamed(_: &Path) -> Option<File> {
    None
}

#[cfg(not(target_os = "linux"))]
fn link(_: &File, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_replaces_its_name_when_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.bin");
        for content in ["one", "two"] {
            let before = fs::read(&target).ok();
            let mut file = NewFile::create(&target).unwrap();
            file.write_all(b"...").unwrap();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.write_all(content.as_bytes()).unwrap();
            assert_eq!(fs::read(&target).ok(), before);
            file.publish().unwrap();
            assert_eq!(fs::read(&target).unwrap(), content.as_bytes());
        }
        assert_eq!(names(dir.path()), ["a.bin"]);
    }

    #[test]
    fn a_name_that_is_taken_stays_with_the_first_file() {
        let dir = tempfile::tempdir().unwrap();
        for (name, is_named) in [("unnamed.bin", false), ("named.bin", true)] {
            let target = dir.path().join(name);
            let with = |content: &[u8]| {
                let mut file = match is_named {
                    false => NewFile::create(&target).unwrap(),
                    true => NewFile::named(&target, with_suffix(&target, &temporary_suffix())).unwrap(),
                };
                file.write_all(content).unwrap();
                file
            };
            // Both have begun before one of them takes the name.
            let (first, second) = (with(b"first"), with(b"second"));
            assert!(first.publish_unless_taken().unwrap());
            assert!(!second.publish_unless_taken().unwrap());
            assert_eq!(fs::read(&target).unwrap(), b"first");
        }
        assert_eq!(names(dir.path()), ["named.bin", "unnamed.bin"]);
    }

    #[test]
    fn temporary_names_differ_in_more_than_process_and_count() {
        let random = || temporary_suffix().trim_end_matches(".tmp").rsplit('-').next().unwrap().to_owned();
        assert_ne!(random(), random());
    }

    #[test]
    fn a_dropped_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.bin");
        let mut file = NewFile::create(&target).unwrap();
        file.write_all(b"half").unwrap();
        #[cfg(target_os = "linux")]
        assert!(names(dir.path()).is_empty(), "no name before the end");
        drop(file);
        assert!(names(dir.path()).is_empty());

        fs::create_dir(&target).unwrap();
        assert!(NewFile::create(&target).is_err(), "a directory stays");
        assert_eq!(names(dir.path()), ["a.bin"]);
        assert!(NewFile::create(&dir.path().join("none/a.bin")).is_err());
    }

    #[test]
    fn a_named_temporary_file_behaves_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.bin");
        let temporary = dir.path().join("a.bin.tmp");
        let named = || NewFile::named(&target, temporary.clone()).unwrap();
        drop(named());
        assert!(names(dir.path()).is_empty());
        named().publish().unwrap();
        assert_eq!(names(dir.path()), ["a.bin"]);
        let mut unsynced = named();
        unsynced.write_all(b"unsynced").unwrap();
        unsynced.publish_unsynced().unwrap();
        assert_eq!((names(dir.path()), fs::read(&target).unwrap()), (vec!["a.bin".to_owned()], b"unsynced".to_vec()));

        // A link of the temporary name is not followed.
        #[cfg(unix)]
        {
            let precious = dir.path().join("precious");
            fs::write(&precious, "kept").unwrap();
            std::os::unix::fs::symlink(&precious, &temporary).unwrap();
            let mut file = named();
            file.write_all(b"new").unwrap();
            file.publish().unwrap();
            assert_eq!((fs::read(&target).unwrap(), fs::read(&precious).unwrap()), (b"new".to_vec(), b"kept".to_vec()));
        }
    }
}
