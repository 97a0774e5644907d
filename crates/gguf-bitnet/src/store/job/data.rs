//! The data file of a job and the units in it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde_json::Value;

use super::journal::Record;
use crate::error::{Error, Result};
use crate::store::read::open_regular;

/// A finished unit of work.
#[derive(Clone, Debug, PartialEq)]
pub struct JobUnit {
    /// The JSON that the caller recorded about the unit.
    pub payload: Value,
    /// End of the unit's bytes in the data; they start where the unit before ends.
    pub end: u64,
    /// BLAKE3 of the unit's bytes, in hexadecimal. Opening a job checks the newest unit only, because a stop can tear
    /// no other one; a caller that reads earlier units back must check their digests itself.
    pub digest: String,
}

/// Opens for reading and writing; creates the file if it is not there. A pipe, a device or a directory is refused.
pub(super) fn open_file(path: &Path) -> Result<File> {
    if path.exists() {
        open_regular(path)?;
    }
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(Error::io("open", path))
}

/// Cuts the file at `end` and places the cursor there.
pub(super) fn rewind(data: &mut File, end: u64) -> io::Result<()> {
    data.set_len(end)?;
    data.seek(SeekFrom::Start(end))?;
    data.sync_all()
}

/// Writes and flushes one unit's bytes; returns their number and their BLAKE3.
pub(super) fn append_data<F>(data: &mut File, write: F) -> io::Result<(u64, String)>
where
    F: FnOnce(&mut dyn Write) -> io::Result<()>,
{
    let mut hashing = Hashing { inner: &mut *data, hasher: blake3::Hasher::new() };
    let mut buffered = io::BufWriter::with_capacity(1 << 20, &mut hashing);
    write(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    let (bytes, digest) = (hashing.hasher.count(), hashing.hasher.finalize().to_string());
    data.sync_data()?;
    Ok((bytes, digest))
}

/// A writer that hashes the bytes it passes on.
struct Hashing<'a> {
    inner: &'a mut File,
    hasher: blake3::Hasher,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

pub(super) fn units_of(records: &[Record]) -> Vec<JobUnit> {
    let unit = |record: &Record| match record {
        Record::Unit { end, digest, payload } => {
            Some(JobUnit { payload: payload.clone(), end: *end, digest: digest.clone() })
        }
        Record::Commit { .. } => None,
    };
    records.iter().filter_map(unit).collect()
}

/// The units whose bytes are on the disk: none beyond the end of the data, and the bytes of the
/// last one have the digest in the journal.
pub(super) fn whole_units(path: &Path, records: &[Record]) -> Result<Vec<JobUnit>> {
    let mut units = units_of(records);
    let mut data = if path.exists() { Some(open_regular(path)?) } else { None };
    let len = match &data {
        Some(data) => data.metadata().map_err(Error::io("examine", path))?.len(),
        None => 0,
    };
    units.truncate(units.partition_point(|unit| unit.end <= len));
    // From the end towards the start: data that were flushed before a later unit began are safe.
    let mut checked = units.len();
    while let Some(last) = checked.checked_sub(1) {
        let start = last.checked_sub(1).map_or(0, |before| units[before].end);
        let JobUnit { end, digest, .. } = &units[last];
        checked = last;
        if *end == start {
            continue;
        }
        let Some(data) = &mut data else { break };
        let found = digest_of(data, start, *end).map_err(Error::io("read", path))?;
        if found == *digest {
            break;
        }
        units.truncate(last);
    }
    Ok(units)
}

fn digest_of(data: &mut File, start: u64, end: u64) -> io::Result<String> {
    data.seek(SeekFrom::Start(start))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(data.take(end - start))?;
    Ok(hasher.finalize().to_string())
}
