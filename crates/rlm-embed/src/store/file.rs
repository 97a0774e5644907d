//! The index file: a header, then segments that are only ever added at its end.
//!
//! ```text
//! header  64 bytes   "RLMINDEX"  version u32  dims u32  identity of the embedder [32]  0 [12]  CRC-32 of the 60 bytes before
//! segments           see segment.rs
//! ```
//! A process that is killed while it writes leaves a last segment that is cut or whose checksum is wrong. Readers stop before it;
//! the next writer cuts it off. A wrong segment that a whole one follows is damage, not a kill, and an error.
//!
//! **Invariant:** the complete part of a file never changes, so that a map of it stays valid while the file grows. One process
//! writes at a time, held by a lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use gguf_bitnet::{MappedFile, write_atomic};
use ternary_core::Bytes;

use super::error::IndexError;
use super::segment::{self, ALIGN, HEADER_BYTES, Segment};
use crate::crc32::crc32;
use crate::error::Result;

const MAGIC: &[u8; 8] = b"RLMINDEX";
const VERSION: u32 = 1;
const FILE_HEADER_BYTES: usize = 64;
/// Most values of a vector.
const MAX_DIMS: u32 = 1 << 16;

/// The complete part of an index file.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) dims: usize,
    pub(super) identity: [u8; 32],
    pub(super) segments: Vec<Segment>,
    /// Length of the complete part in bytes.
    pub(super) end: u64,
}

impl Content {
    /// Reads the index at `path`.
    pub(super) fn read(path: &Path) -> Result<Content> {
        Content::parse(&MappedFile::open(path)?.bytes(), path)
    }

    fn parse(bytes: &Bytes, path: &Path) -> Result<Content> {
        let header = bytes.first_chunk::<FILE_HEADER_BYTES>();
        let header = header.filter(|header| header.starts_with(MAGIC));
        let header = header.ok_or_else(|| IndexError::NotAnIndex { path: path.to_owned() })?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if word(8) != VERSION {
            return Err(IndexError::Version { path: path.to_owned(), got: word(8) }.into());
        }
        let dims = word(12);
        if crc32(&header[..60]) != word(60) || dims == 0 || dims > MAX_DIMS {
            return Err(IndexError::NotAnIndex { path: path.to_owned() }.into());
        }
        let mut identity = [0; 32];
        identity.copy_from_slice(&header[16..48]);
        let dims = dims as usize;
        let mut segments = Vec::new();
        let mut at = FILE_HEADER_BYTES;
        while at < bytes.len() {
            match segment::parse(&bytes.slice(at..bytes.len()), dims) {
                Ok((segment, length)) => {
                    segments.push(segment);
                    at += length;
                }
                Err(defect) if whole_segment_behind(bytes, at, dims) => {
                    return Err(IndexError::Damaged { path: path.to_owned(), offset: at, defect }.into());
                }
                Err(_) => break,
            }
        }
        Ok(Content { dims, identity, segments, end: at as u64 })
    }
}

/// Whether a whole segment begins somewhere behind `at`.
fn whole_segment_behind(bytes: &Bytes, at: usize, dims: usize) -> bool {
    let starts = (at + ALIGN..bytes.len().saturating_sub(HEADER_BYTES)).step_by(ALIGN);
    starts.into_iter().any(|start| {
        bytes[start..].starts_with(b"SEGM") && segment::parse(&bytes.slice(start..bytes.len()), dims).is_ok()
    })
}

/// An index file that this process may extend.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    file: File,
    end: u64,
}

impl Writer {
    /// Writes an index without chunks to `path`, which must not exist.
    pub(super) fn create(path: &Path, dims: usize, identity: [u8; 32]) -> Result<()> {
        if path.exists() {
            let exists = gguf_bitnet::Error::from(gguf_bitnet::StoreError::OutputExists);
            return Err(exists.in_file(path).into());
        }
        let mut header = Vec::with_capacity(FILE_HEADER_BYTES);
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend((dims as u32).to_le_bytes());
        header.extend(identity);
        header.extend([0; 12]);
        header.extend(crc32(&header).to_le_bytes());
        Ok(write_atomic(path, &header)?)
    }

    /// Takes the lock of the index at `path`.
    pub(super) fn open(path: &Path) -> Result<Writer> {
        let io = |action| gguf_bitnet::Error::io(action, path);
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(io("open"))?;
        match file.try_lock() {
            Ok(()) => Ok(Writer { path: path.to_owned(), file, end: 0 }),
            Err(TryLockError::WouldBlock) => Err(IndexError::Busy { path: path.to_owned() }.into()),
            Err(TryLockError::Error(error)) => Err(io("lock")(error).into()),
        }
    }

    /// Cuts the file after its complete part, which has `end` bytes.
    pub(super) fn begin_at(&mut self, end: u64) -> Result<()> {
        self.end = end;
        Ok(self.file.set_len(end).map_err(gguf_bitnet::Error::io("shorten", &self.path))?)
    }

    /// Adds a segment. When this returns the segment is on the disk; when it fails the file is as it was before.
    pub(super) fn append(&mut self, segment: &[u8]) -> Result<()> {
        let end = self.end;
        let mut write = || -> std::io::Result<()> {
            self.file.seek(SeekFrom::Start(end))?;
            self.file.write_all(segment)?;
            self.file.sync_data()
        };
        if let Err(error) = write() {
            // Readers stop before an incomplete segment in any case.
            let _ = self.file.set_len(end);
            return Err(gguf_bitnet::Error::io("write", &self.path)(error).into());
        }
        self.end += segment.len() as u64;
        Ok(())
    }
}
