//! Reading small files whole: configurations, tokenizers, indices, journals, texts.
//!
//! **Invariant:** every file of the product that is read whole is read here, once, up to the limit that its reader
//! states, and it is a regular file: a sparse file of any size costs no memory, and a pipe or a device cannot stop the
//! program. `cargo xtask tidy` refuses other readers.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::StoreError;
use crate::error::{Error, Locate, Result};
use crate::source::{FileKind, SourceError};
use crate::text::decode_text;

/// Most bytes of a configuration or a chat template; the largest known, with a list of added tokens, have a few MB.
pub const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// Opens a regular file for reading, for readers that take part after part.
///
/// # Errors
/// [`StoreError::Io`]; [`StoreError::IsDirectory`]; [`SourceError::OtherFile`] for a pipe, a socket or a device.
pub fn open_regular(path: &Path) -> Result<File> {
    // Checked before the open, which for a pipe would block until another process writes to it.
    let metadata = std::fs::metadata(path).map_err(Error::io("open", path))?;
    if metadata.is_dir() {
        return Err(StoreError::IsDirectory { path: path.to_owned() }.into());
    }
    if !metadata.is_file() {
        return Err(SourceError::OtherFile { kind: FileKind::Special }.in_file(path));
    }
    File::open(path).map_err(Error::io("open", path))
}

/// The bytes of a regular file.
///
/// # Errors
/// As [`open_regular`]; [`StoreError::TooLong`] for more than `limit` bytes.
pub(crate) fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = open_regular(path)?;
    let length = file.metadata().map_err(Error::io("examine", path))?.len();
    if length > limit {
        return Err(StoreError::TooLong { limit }.in_file(path));
    }
    // The limit holds while reading too: the file may grow, and files of `/proc` state no length.
    read_all(file, path, limit)
}

/// The bytes of a stream, up to a limit; `path` is for messages.
pub(super) fn read_all(stream: impl Read, path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > limit { Err(StoreError::TooLong { limit }.in_file(path)) } else { Ok(bytes) }
}

/// The first `n` bytes of a regular file, or all of a shorter one.
///
/// # Errors
/// As [`open_regular`].
pub(crate) fn read_start(path: &Path, n: usize) -> Result<Vec<u8>> {
    let mut start = Vec::with_capacity(n);
    open_regular(path)?.take(n as u64).read_to_end(&mut start).map_err(Error::io("read", path))?;
    Ok(start)
}

/// The text of a regular file, without a byte order mark.
///
/// ```
/// let config = fixtures::path("goldens/glm-tiny/config.json");
/// assert!(gguf_bitnet::read_text(&config, 1 << 20).is_ok());
/// let error = gguf_bitnet::read_text(&config, 10).unwrap_err().to_string();
/// assert!(error.contains("config.json: has more than 10 bytes"), "{error}");
/// ```
///
/// # Errors
/// As [`open_regular`]; [`StoreError::TooLong`] for more than `limit` bytes; [`StoreError::NotText`] for bytes that are neither UTF-8 nor marked UTF-16; [`SourceError::OtherFile`] for a Git LFS
/// pointer, which stands for a text that was not fetched.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    let bytes = read_bytes(path, limit)?;
    if FileKind::is_pointer(&bytes) {
        return Err(SourceError::OtherFile { kind: FileKind::LfsPointer }.in_file(path));
    }
    decode_text(bytes).map_err(|defect| StoreError::from(defect).in_file(path))
}

/// As [`read_text`], for a file that need not be there. A link whose target is missing is an error: the file was there.
///
/// # Errors
/// As [`read_text`].
pub fn read_text_if_any(path: &Path, limit: u64) -> Result<Option<String>> {
    match std::fs::symlink_metadata(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        _ => read_text(path, limit).map(Some),
    }
}

/// The text of a stream such as standard input, without a byte order mark.
///
/// # Errors
/// [`StoreError::TooLong`], [`StoreError::NotText`], [`StoreError::Io`]; `name` stands for the path.
pub fn read_stream(stream: impl Read, name: &str, limit: u64) -> Result<String> {
    decode_text(read_all(stream, Path::new(name), limit)?).map_err(|defect| StoreError::from(defect).in_file(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_files_up_to_the_limit_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        std::fs::write(&path, "größe").unwrap();
        assert_eq!(read_text(&path, 7).unwrap(), "größe");
        let error = read_bytes(&path, 6).unwrap_err();
        assert!(matches!(error.root(), Error::Store(StoreError::TooLong { limit: 6 })), "{error}");
        std::fs::write(&path, b"\xef\xbb\xbf{}").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "{}", "without its byte order mark");
        std::fs::write(&path, b"\xff{").unwrap();
        let error = read_text(&path, 5).unwrap_err();
        assert!(matches!(error.root(), Error::Store(StoreError::NotText(_))), "{error}");
        assert!(error.to_string().contains("a.json"), "{error}");

        std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n").unwrap();
        assert!(read_text(&path, 99).unwrap_err().to_string().contains("git lfs pull"));

        // A sparse file has a size and takes no memory.
        std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(matches!(read_bytes(&path, 1 << 20).unwrap_err().root(), Error::Store(StoreError::TooLong { .. })));
    }

    #[test]
    fn a_file_that_need_not_be_there_is_still_read_with_care() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert_eq!(read_text_if_any(&path, 9).unwrap(), None);
        assert_eq!(read_text_if_any(&path.join("b"), 9).unwrap(), None);
        std::fs::create_dir(&path).unwrap();
        assert!(read_text_if_any(&path, 9).is_err(), "a directory of the name is no missing file");
        #[cfg(unix)]
        {
            let link = dir.path().join("link.json");
            std::os::unix::fs::symlink("gone", &link).unwrap();
            assert!(read_text_if_any(&link, 9).is_err(), "a link to nothing is no missing file");
        }
    }

    #[cfg(unix)]
    #[test]
    fn pipes_devices_and_directories_are_refused_and_do_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for path in [socket.as_path(), Path::new("/dev/zero"), dir.path()] {
            assert!(read_bytes(path, 100).is_err(), "{}", path.display());
        }
    }

    #[test]
    fn streams_keep_to_the_limit() {
        assert_eq!(read_stream(&b"\xef\xbb\xbfhi"[..], "standard input", 5).unwrap(), "hi");
        let error = read_stream(io::repeat(b'a'), "standard input", 5).unwrap_err();
        assert!(error.to_string().starts_with("standard input: has more than 5 bytes"), "{error}");
    }
}
