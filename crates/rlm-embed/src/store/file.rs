//! The index file: a header, then segments that are only ever added at its end.
//!
//! ```text
//! header  64 bytes   "RLMINDEX"  version u32  dims u32  identity of the embedder [32]  0 [12]  CRC-32 of the 60 bytes before
//! segments           see segment.rs
//! ```
//! A process that is killed while it writes leaves a last segment that is cut or whose checksum is wrong. Readers stop before it;
//! the next change puts a segment behind it that says so, and goes on from there. A wrong segment that a whole one follows is
//! damage, not a kill, and an error.
//!
//! **Invariant:** a byte of the file never changes once it is written, and the file never becomes shorter, so that a map of it
//! stays valid while it grows. One process writes at a time, held by a lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use gguf_bitnet::{MappedFile, sync_dir};
use ternary_core::Bytes;

use super::error::IndexError;
use super::segment::{self, ALIGN, HEADER_BYTES, Header, Segment};
use crate::crc32::crc32;
use crate::error::Result;

const MAGIC: &[u8; 8] = b"RLMINDEX";
const VERSION: u32 = 1;
const FILE_HEADER_BYTES: usize = 64;
/// Longest segment that says that bytes are void.
const MAX_VOID_BYTES: u64 = 64;
/// Bytes of segments that are checked in vain, beside four times the length of the file, before the file counts as damaged: a file
/// that was made for it would else cost the square of its length, and interrupted writes that later ones follow cost far less.
const CHECKED_IN_VAIN: u64 = 64 << 20;
/// Most values of a vector.
const MAX_DIMS: u32 = 1 << 16;

/// The segments of an index file.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) dims: usize,
    pub(super) identity: [u8; 32],
    pub(super) segments: Vec<Segment>,
    /// Where the last whole segment ends.
    pub(super) end: u64,
    /// Bytes that belong to no whole segment.
    pub(super) void_bytes: u64,
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
        let (mut segments, mut at, mut void_bytes) = (Vec::new(), FILE_HEADER_BYTES, 0);
        let mut to_check = CHECKED_IN_VAIN + 4 * bytes.len() as u64;
        while at < bytes.len() {
            let defect = match segment::parse(&bytes.slice(at..bytes.len()), dims) {
                Ok((Segment::Void(_), _)) => "a void that is none",
                Ok((segment, length)) => {
                    segments.push(segment);
                    at += length;
                    continue;
                }
                Err(defect) => defect,
            };
            match behind(bytes, at, dims, &mut to_check) {
                Behind::Nothing => break,
                Behind::EndOfVoid(next) => {
                    void_bytes += next - at;
                    at = next;
                }
                Behind::Whole => {
                    return Err(IndexError::Damaged { path: path.to_owned(), offset: at, defect }.into());
                }
            }
        }
        void_bytes += bytes.len() - at;
        Ok(Content { dims, identity, segments, end: at as u64, void_bytes: void_bytes as u64 })
    }
}

/// The bytes behind a place where no whole segment begins.
enum Behind {
    Nothing,
    /// A segment that says that everything before it is void; it ends here.
    EndOfVoid(usize),
    /// Another segment, so that the bytes at the place are damaged; or no bytes are left to check.
    Whole,
}

/// Looks behind `at`, where the caller found no segment. `to_check` holds the bytes that may still be checked in vain in the whole
/// file, so that the time of all calls together grows with the length of the file alone.
fn behind(bytes: &Bytes, at: usize, dims: usize, to_check: &mut u64) -> Behind {
    // A segment that reaches beyond the file is refused by its header, at no cost.
    let is_cut = |start: usize, length: u64| length > (bytes.len() - start) as u64;
    let mut pays = |start: usize, length: u64| {
        let rest = to_check.checked_sub(if is_cut(start, length) { 0 } else { length });
        *to_check = rest.unwrap_or(0);
        rest.is_some()
    };
    let own_length = Header::parse(&bytes[at..]).map_or(0, |header| header.length);
    if !pays(at, own_length) {
        return Behind::Whole;
    }
    // Inside of an interrupted segment lie texts, and no segments but the one that says that it is void.
    let own_end = own_length.saturating_add(at as u64);
    for start in (at + ALIGN..bytes.len().saturating_sub(HEADER_BYTES)).step_by(ALIGN) {
        let Ok(header) = Header::parse(&bytes[start..]) else { continue };
        let parse = || segment::parse(&bytes.slice(start..bytes.len()), dims);
        if header.is_void() && header.length <= MAX_VOID_BYTES {
            match parse() {
                Ok((Segment::Void(from), length)) if from == at as u64 => return Behind::EndOfVoid(start + length),
                _ => continue,
            }
        }
        if (start as u64) < own_end {
            continue;
        }
        if !pays(start, header.length) || parse().is_ok() {
            return Behind::Whole;
        }
    }
    Behind::Nothing
}

/// An index file that this process may extend.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    file: File,
    end: u64,
}

impl Writer {
    /// Takes the lock of the index at `path`.
    pub(super) fn open(path: &Path) -> Result<Writer> {
        Writer::locked(path, OpenOptions::new().read(true).write(true))
    }

    /// Takes the lock of the index at `path`, and makes the file where there is none. A file that holds the beginning of this
    /// header, as a kill leaves it, is completed.
    pub(super) fn open_or_create(path: &Path, dims: usize, identity: [u8; 32]) -> Result<Writer> {
        let mut writer = Writer::locked(path, OpenOptions::new().read(true).write(true).create(true).truncate(false))?;
        let header = header(dims, identity);
        let start = MappedFile::open(path)?.bytes();
        if start.len() < FILE_HEADER_BYTES && header.starts_with(&start) {
            writer.write(start.len() as u64, &header[start.len()..])?;
            sync_dir(path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
        }
        Ok(writer)
    }

    fn locked(path: &Path, options: &OpenOptions) -> Result<Writer> {
        let io = |action| gguf_bitnet::Error::io(action, path);
        let file = options.open(path).map_err(io("open"))?;
        match file.try_lock() {
            Ok(()) => Ok(Writer { path: path.to_owned(), file, end: 0 }),
            Err(TryLockError::WouldBlock) => Err(IndexError::Busy { path: path.to_owned() }.into()),
            Err(TryLockError::Error(error)) => Err(io("lock")(error).into()),
        }
    }

    /// Says where the last whole segment of the file ends.
    pub(super) fn begin_at(&mut self, end: u64) {
        self.end = end;
    }

    /// Adds a segment. When this returns the segment is on the disk; when it fails readers do not see it.
    pub(super) fn append(&mut self, segment: &[u8]) -> Result<()> {
        let length = self.file.metadata().map_err(gguf_bitnet::Error::io("read", &self.path))?.len();
        if length > self.end {
            // A kill or a failed write left bytes there.
            let start = length.next_multiple_of(ALIGN as u64);
            // A segment ends with zeros or text, which has no such byte: the filling never completes it.
            let mut void = vec![0xff; (start - length) as usize];
            void.extend(segment::encode_void(self.end));
            self.write(length, &void)?;
            self.end = length + void.len() as u64;
        }
        self.write(self.end, segment)?;
        self.end += segment.len() as u64;
        Ok(())
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let mut write = || -> std::io::Result<()> {
            self.file.seek(SeekFrom::Start(at))?;
            self.file.write_all(bytes)?;
            self.file.sync_data()
        };
        Ok(write().map_err(gguf_bitnet::Error::io("write", &self.path))?)
    }
}

/// The header of an index file.
fn header(dims: usize, identity: [u8; 32]) -> Vec<u8> {
    let mut header = Vec::with_capacity(FILE_HEADER_BYTES);
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend((dims as u32).to_le_bytes());
    header.extend(identity);
    header.extend([0; 12]);
    header.extend(crc32(&header).to_le_bytes());
    header
}
