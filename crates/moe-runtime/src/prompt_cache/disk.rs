//! Blocks in files: `DIR/aa/NAME.block`, where `aa` are the first two characters of the name.
//!
//! ```text
//! "CRAFTKV1"         8 bytes
//! name               32 bytes
//! length: u64        of the values, little-endian
//! values             as `CacheBlock::write_bytes` writes them
//! BLAKE3             32 bytes: of everything before
//! ```
//!
//! The order of the last use survives in the files' times of modification, as a logical clock: a use sets the time of a
//! file a little beyond the newest one that is known.
//!
//! **Invariant:** a file appears complete or not at all when a process is killed. Nothing waits for the disk: a file that a
//! power failure left incomplete does not read back exactly, and such a file is removed.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gguf_bitnet::{NewFile, open_regular};
use mla_attention::{CacheBlock, CacheLayout};

use super::lru::Lru;
use super::name::BlockName;
use crate::error::Result;
use crate::storage::error::StorageError;

const MAGIC: &[u8; 8] = b"CRAFTKV1";
const HEADER_BYTES: usize = 8 + 32 + 8;
const HASH_BYTES: usize = 32;
const EXTENSION: &str = "block";

/// The blocks in a folder.
#[derive(Debug)]
pub(super) struct DiskBlocks {
    dir: PathBuf,
    files: Lru<()>,
    /// Blocks whose files were removed to make room, until they are taken from here.
    pub(super) removed: Vec<BlockName>,
    /// The newest time of a file that is known.
    newest: SystemTime,
    /// The bytes of the file that is written or read.
    buffer: Vec<u8>,
}

impl DiskBlocks {
    /// The blocks in `dir`, which is made if it does not exist, within `bound` bytes: what exceeds them is removed.
    pub(super) fn open(dir: &Path, bound: u64) -> Result<DiskBlocks> {
        make_folder(dir).map_err(|source| StorageError::PromptCache { path: dir.to_owned(), source })?;
        let mut found = Vec::new();
        let folders = fs::read_dir(dir).map_err(|source| StorageError::PromptCache { path: dir.to_owned(), source })?;
        // Folders and files that cannot be listed are as good as absent.
        for file in folders.flatten().filter_map(|folder| fs::read_dir(folder.path()).ok()).flatten().flatten() {
            let path = file.path();
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".block"));
            let Some(name) = name.and_then(BlockName::from_hex).filter(|name| file_of(dir, name) == path) else {
                continue;
            };
            let Ok(metadata) = file.metadata() else { continue };
            if let (true, Ok(time)) = (metadata.is_file(), metadata.modified()) {
                found.push((time, name, metadata.len()));
            }
        }
        found.sort_unstable();
        let newest = found.last().map_or(SystemTime::UNIX_EPOCH, |(time, ..)| *time);
        let files = Lru::new(bound);
        let mut disk = DiskBlocks { dir: dir.to_owned(), files, removed: Vec::new(), newest, buffer: Vec::new() };
        for (_, name, bytes) in found {
            disk.files.insert(name, (), bytes);
        }
        disk.evict();
        Ok(disk)
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.bytes()
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    pub(super) fn contains(&self, name: &BlockName) -> bool {
        self.files.contains(name)
    }

    /// Holds blocks of one prompt, as many as fit, and counts a use of each, the first one last. They are written from the
    /// first one on, so that a process that is killed leaves a beginning.
    pub(super) fn keep(&mut self, names: &[BlockName], blocks: &[Arc<CacheBlock>]) {
        let most = self.files.room_for(blocks.first().map_or(0, |block| file_bytes(block.layout()) as u64));
        let names = &names[..names.len().min(most)];
        // Files that are held already are used before others are written, so that they are not removed to make room.
        for name in names {
            self.files.get(name);
        }
        for (name, block) in names.iter().zip(blocks) {
            if !self.files.contains(name) && !self.write(name, block) {
                break;
            }
        }
        for name in names.iter().rev() {
            if self.files.get(name).is_some() {
                self.touch(name);
            }
        }
    }

    /// Sets the time of a file beyond the newest one. A time that cannot be set costs the file its place in the order, no
    /// more.
    fn touch(&mut self, name: &BlockName) {
        let Some(newest) = self.newest.checked_add(Duration::from_millis(1)) else { return };
        self.newest = newest;
        let file = File::options().append(true).open(file_of(&self.dir, name));
        let _ = file.and_then(|file| file.set_modified(newest));
    }

    /// The block under `name`; `None` for a file that is not there, cannot be read or is not whole. One that was read
    /// and is not whole is removed. One that cannot be read, say because the process has too many files open, may be
    /// good and stays.
    pub(super) fn read(&mut self, name: &BlockName, layout: &Arc<CacheLayout>) -> Option<CacheBlock> {
        if !self.files.contains(name) {
            return None;
        }
        let path = file_of(&self.dir, name);
        let Ok(has_length) = self.fill_buffer(&path, file_bytes(layout)) else {
            if matches!(path.try_exists(), Ok(false)) {
                self.files.remove(name);
            }
            return None;
        };
        let block = if has_length { self.block_of_buffer(name, layout) } else { None };
        if block.is_none() {
            self.files.remove(name);
            self.remove_file(name);
        }
        block
    }

    /// Reads a file of `expected` bytes; `false` for one of another length.
    fn fill_buffer(&mut self, path: &Path, expected: usize) -> std::result::Result<bool, Box<dyn std::error::Error>> {
        let mut file = open_regular(path)?;
        if file.metadata()?.len() != expected as u64 {
            return Ok(false);
        }
        self.buffer.resize(expected, 0);
        match file.read_exact(&mut self.buffer) {
            Ok(()) => Ok(true),
            // Another program cut it meanwhile.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The block of a file in the buffer; `None` where the file is another one or damaged.
    fn block_of_buffer(&self, name: &BlockName, layout: &Arc<CacheLayout>) -> Option<CacheBlock> {
        let expected = file_bytes(layout);
        let (content, hash) = self.buffer.split_at(expected - HASH_BYTES);
        let (header, values) = content.split_at(HEADER_BYTES);
        let is_whole = header == header_of(name, values.len()) && hash == blake3::hash(content).as_bytes();
        if is_whole { CacheBlock::from_bytes(layout, values) } else { None }
    }

    /// Writes a block, and removes the files that then exceed the bound; whether it was written.
    fn write(&mut self, name: &BlockName, block: &CacheBlock) -> bool {
        self.buffer.clear();
        self.buffer.extend_from_slice(&header_of(name, block.n_bytes()));
        block.write_bytes(&mut self.buffer);
        let hash = blake3::hash(&self.buffer);
        self.buffer.extend_from_slice(hash.as_bytes());
        let path = file_of(&self.dir, name);
        let write = || -> std::result::Result<(), Box<dyn std::error::Error>> {
            make_folder(path.parent().unwrap_or(&self.dir))?;
            let mut file = NewFile::create(&path)?;
            file.write_all(&self.buffer)?;
            Ok(file.publish_unsynced()?)
        };
        if let Err(error) = write() {
            tracing::warn!(path = %path.display(), %error, "a block of the prompt cache was not written");
            return false;
        }
        if let Ok(time) = fs::metadata(&path).and_then(|metadata| metadata.modified()) {
            self.newest = self.newest.max(time);
        }
        self.files.insert(*name, (), file_bytes(block.layout()) as u64);
        self.evict();
        true
    }

    fn evict(&mut self) {
        while let Some(name) = self.files.pop_excess() {
            self.remove_file(&name);
            self.removed.push(name);
        }
    }

    fn remove_file(&self, name: &BlockName) {
        // Another process may have removed it.
        let _ = fs::remove_file(file_of(&self.dir, name));
    }
}

/// Bytes of a file.
fn file_bytes(layout: &CacheLayout) -> usize {
    HEADER_BYTES + layout.block_bytes() + HASH_BYTES
}

fn header_of(name: &BlockName, length: usize) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..40].copy_from_slice(&name.0);
    header[40..].copy_from_slice(&(length as u64).to_le_bytes());
    header
}

fn file_of(dir: &Path, name: &BlockName) -> PathBuf {
    let name = name.to_string();
    dir.join(&name[..2]).join(format!("{name}.{EXTENSION}"))
}

/// Makes a folder that only its owner can read: a cache tells the prompts that it is of.
fn make_folder(dir: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}
