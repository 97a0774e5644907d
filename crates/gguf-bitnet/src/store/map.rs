//! A read-only memory map of a model file, and the hints that keep its resident pages few.
//!
//! **Invariant:** this file and `map/lost_pages.rs` are the only ones of the crate with `unsafe` code, and nothing here
//! interprets a byte.
//!
//! The map follows the file: overwriting a model file in place while it is in use changes the weights under the
//! reader, and truncating it makes the next access end the process (SIGBUS; see `lost_pages`). Programs of this workspace
//! therefore replace files by rename; the index of `rlm-embed` grows at its end and never changes or loses a byte.

#[cfg(target_os = "linux")]
mod lost_pages;

#[cfg(target_os = "linux")]
pub use lost_pages::end_on_lost_pages;

use std::fs::Metadata;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use ternary_core::Bytes;

use super::read::open_regular;
use crate::error::{Error, Result};

/// A memory-mapped file. Clones share the map.
#[derive(Clone, Debug)]
pub struct MappedFile {
    map: Arc<Mmap>,
    state: [u64; 6],
}

impl MappedFile {
    /// Maps the whole file at `path` for reading.
    ///
    /// # Errors
    /// [`StoreError::Io`](crate::StoreError::Io) when it cannot be mapped, and as [`open_regular`].
    pub fn open(path: &Path) -> Result<MappedFile> {
        let file = open_regular(path)?;
        let state = state(&file.metadata().map_err(Error::io("open", path))?);
        #[allow(unsafe_code, reason = "a file map has no safe constructor")]
        // SAFETY: the map is read-only and handed out as `&[u8]` only. The system cannot prevent a change of the file
        // while it is mapped; the head of this file forbids it: a writer of this workspace replaces files by
        // rename, or adds bytes behind those that a map of an earlier moment covers.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        Ok(MappedFile { map: Arc::new(map), state })
    }

    /// The whole file as shared bytes that keep the map alive.
    pub fn bytes(&self) -> Bytes {
        Bytes::from_owner(self.clone())
    }

    /// Size, times and inode number of the file when it was opened; another file, or the same file after a write,
    /// has other numbers.
    pub(crate) fn state(&self) -> [u64; 6] {
        self.state
    }

    /// Length of the file in bytes when it was mapped.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether the file had no bytes.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Hands the pages that lie wholly inside `range` back to the operating system. Later reads
    /// fetch them from the file again. A hint: failure changes nothing.
    pub fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        {
            let page = PAGE_BYTES;
            // A page that is only partly inside may hold data of a neighbouring tensor that is in use.
            let start = range.start.next_multiple_of(page);
            let end = range.end.min(self.len()) / page * page;
            if start >= end {
                return;
            }
            #[allow(unsafe_code, reason = "MADV_DONTNEED is unchecked in memmap2")]
            // SAFETY: dropping pages of a shared, read-only file map loses no data: the next
            // access reads the same bytes from the file. memmap2 checks the range.
            let advised =
                unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
            if let Err(error) = advised {
                tracing::debug!(%error, "the system did not take mapped pages back");
            }
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// Asks the operating system to read `range` ahead. A hint: failure changes nothing.
    pub fn prefetch(&self, range: Range<usize>) {
        #[cfg(unix)]
        {
            let end = range.end.min(self.len());
            if range.start >= end {
                return;
            }
            let (start, len) = (range.start, end - range.start);
            if let Err(error) = self.map.advise_range(memmap2::Advice::WillNeed, start, len) {
                tracing::debug!(%error, "the system did not read mapped pages ahead");
            }
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

/// Size, time of the last write, time of the last change of any kind (which programs cannot set), and inode number of
/// a file.
#[cfg(unix)]
fn state(metadata: &Metadata) -> [u64; 6] {
    use std::os::unix::fs::MetadataExt;
    let m = metadata;
    let times = [m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()].map(i64::cast_unsigned);
    [m.len(), times[0], times[1], times[2], times[3], m.ino()]
}

/// Size, time of the last write and time of creation of a file, as far as the system tells.
#[cfg(not(unix))]
fn state(metadata: &Metadata) -> [u64; 6] {
    let parts = |time: std::io::Result<std::time::SystemTime>| {
        let since = time.ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
        (since.as_secs(), u64::from(since.subsec_nanos()))
    };
    let (modified, created) = (parts(metadata.modified()), parts(metadata.created()));
    [metadata.len(), modified.0, modified.1, created.0, created.1, 0]
}

/// A multiple of the page size of every supported system (16 KiB on Apple silicon, 64 KiB on some
/// ARM servers).
#[cfg(unix)]
const PAGE_BYTES: usize = 64 << 10;

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SourceError;
    use std::io::Write;

    #[test]
    fn released_and_prefetched_pages_read_the_same() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..1_000_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
        file.write_all(&content).unwrap();
        let map = MappedFile::open(file.path()).unwrap();
        let bytes = map.bytes();
        assert_eq!(&bytes[..], content);
        map.release(1..map.len());
        map.release(5..usize::MAX);
        map.prefetch(100..usize::MAX);
        map.prefetch(usize::MAX - 1..usize::MAX);
        drop(map);
        assert_eq!(&bytes[..], content);
    }

    #[test]
    fn only_regular_files_are_mapped_and_an_empty_one_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(MappedFile::open(file.path()).unwrap().is_empty());
        let dir = tempfile::tempdir().unwrap();
        assert!(MappedFile::open(dir.path()).is_err());
        #[cfg(unix)]
        {
            let socket = dir.path().join("socket.gguf");
            let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
            let error = MappedFile::open(&socket).unwrap_err();
            assert!(matches!(error.root(), Error::Source(SourceError::OtherFile { .. })), "{error}");
            let error = crate::OpenModel::open(&socket).unwrap_err();
            assert!(matches!(error.root(), Error::Source(SourceError::OtherFile { .. })), "{error}");
        }
        let missing = dir.path().join("no.gguf");
        let error = MappedFile::open(&missing).unwrap_err();
        assert!(error.to_string().contains("no.gguf"), "{error}");
    }
}
