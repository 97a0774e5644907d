//! A resumable job: an output file that grows unit by unit and survives a kill at any moment.
//!
//! ```text
//! OUT.partial/manifest.json   inputs and settings, written first
//! OUT.partial/data            the output so far: the units' bytes, one after the other
//! OUT.partial/journal.jsonl   one checked line per finished unit (see job/journal.rs)
//! OUT                         appears by rename when the job is committed
//! ```
//!
//! **Invariant:** a unit is in the journal only after its bytes are on the disk, and a line counts
//! only if its checksum, which covers all lines before it, is right. Whatever else a kill or a power
//! cut leaves (a torn line, bytes without a line, a line without bytes) is cut off by the next
//! [`Job::open`], which therefore continues from exactly the units that are whole. As the caller
//! makes each unit's bytes from the inputs in the manifest alone, the result is byte-identical.
//!
//! Committing writes a last line, renames the data, flushes the directory and moves the job's
//! directory out of the way in one step; a kill between any two of these is finished by the next
//! `open` of the same job, which then says [`Job::is_committed`].
//!
//! ```
//! use std::io::Write;
//! use gguf_bitnet::job::Job;
//! # let dir = tempfile::tempdir().unwrap();
//! # let out = dir.path().join("sum.txt");
//! let manifest = serde_json::json!({ "input": "abc", "upper": true });
//! let mut job = Job::open(&out, &manifest, false)?;
//! for i in job.units().len()..3 {
//!     job.append(serde_json::json!({ "unit": i }), |data| data.write_all(&[b'A' + i as u8]))?;
//! }
//! job.commit(&out)?;
//! assert_eq!(std::fs::read(&out).unwrap(), b"ABC");
//! # Ok::<(), gguf_bitnet::Error>(())
//! ```

mod journal;
mod manifest;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::disk::{parent, sync_dir, with_suffix, write_atomic};
use super::error::StoreError;
use super::path::output_path;
use crate::error::Locate;
use crate::error::{Error, Result};

use journal::{Journal, Record};
use manifest::{check_manifest, pretty};

const MANIFEST: &str = "manifest.json";
const JOURNAL: &str = "journal.jsonl";
const DATA: &str = "data";
/// Every file a job's directory may hold.
const OWN_FILES: [&str; 4] = [MANIFEST, "manifest.json.tmp", JOURNAL, DATA];

/// A finished unit of work.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// What the caller recorded about the unit.
    pub payload: Value,
    /// End of the unit's bytes in the data; they start where the unit before ends.
    pub end: u64,
    /// BLAKE3 of the unit's bytes, in hexadecimal. Opening a job checks it for the newest unit only, the one that a stop
    /// can have torn: whoever reads earlier ones back checks them then.
    pub digest: String,
}

/// An open job. Dropping it keeps what is finished for the next [`Job::open`]; a job without
/// any finished unit leaves nothing behind.
#[derive(Debug)]
pub struct Job {
    out: PathBuf,
    dir: PathBuf,
    force: bool,
    units: Vec<Unit>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Units can be appended.
    Open { journal: Journal, data: File },
    /// The output is in place; only the job's directory remains to be removed.
    Committed,
    /// Nothing more can be done with this value.
    Ended,
}

impl Job {
    /// Starts the job that makes `out`, or continues it when `OUT.partial` holds the same manifest.
    ///
    /// With `force` an existing `out` is replaced when the job is committed (not before), and an
    /// unfinished job with another manifest is thrown away; one with the same manifest is continued
    /// all the same.
    ///
    /// # Errors
    /// [`StoreError::OutputExists`] without `force`; [`StoreError::ManifestMismatch`] naming the first key
    /// that differs from the unfinished job; [`StoreError::JobBusy`] when another process holds the job;
    /// [`StoreError::BadOutput`], [`StoreError::JobDamaged`], [`StoreError::JobForeignFile`] and [`StoreError::Io`].
    pub fn open(out: &Path, manifest: &Value, force: bool) -> Result<Job> {
        let out = output_path(out)?;
        let dir = with_suffix(&out, ".partial");
        // What a kill left of a job that had ended, whether or not this one may begin.
        remove_own_files(&with_suffix(&dir, ".done"));
        Job::check(&out, force)?;
        Job::open_in(out, dir, manifest, force)
    }

    /// Finds what keeps [`Job::open`] from making `out` whatever the manifest, and changes nothing: for callers who
    /// need long to know their manifest. Returns how many bytes an unfinished job holds already.
    ///
    /// # Errors
    /// [`StoreError::OutputExists`] without `force`; [`StoreError::BadOutput`], [`StoreError::JobForeignFile`] and [`StoreError::Io`].
    pub fn check(out: &Path, force: bool) -> Result<u64> {
        let out = output_path(out)?;
        if out.to_str().is_none() {
            let why = "its name or that of its directory is not UTF-8: choose another";
            return Err(StoreError::BadOutput { why }.in_file(out));
        }
        let dir = with_suffix(&out, ".partial");
        check_own(&dir)?;
        if !dir.exists() && out.exists() && !force {
            return Err(StoreError::OutputExists.in_file(out));
        }
        Ok(fs::metadata(dir.join(DATA)).map_or(0, |data| data.len()))
    }

    fn open_in(out: PathBuf, dir: PathBuf, manifest: &Value, force: bool) -> Result<Job> {
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create", &dir)(error));
            }
            _ => {}
        }
        let file = open_file(&dir.join(JOURNAL))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::JobBusy.in_file(out)),
            // Some network file systems have no locks: nothing then warns of a second process.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", dir.join(JOURNAL))(error)),
        }
        let (mut journal, records) = Journal::read(file, dir.join(JOURNAL))?;
        let mut keep = !records.is_empty();
        if keep {
            match check_manifest(&dir.join(MANIFEST), manifest) {
                Ok(()) => {}
                Err(_) if force => keep = false,
                // An output that is there is what stands in the way, not the manifest.
                Err(_) if out.exists() => return Err(StoreError::OutputExists.in_file(out)),
                Err(error) => return Err(error.in_file(dir)),
            }
        }
        if let Some(Record::Commit { name, bytes }) = records.last()
            && !dir.join(DATA).exists()
        {
            let done = parent(&out).join(name);
            let finished = fs::metadata(&done).is_ok_and(|m| m.is_file() && m.len() == *bytes);
            if keep && finished {
                let units = units_of(&records);
                return Ok(Job { out, dir, force, units, state: State::Committed });
            }
            keep = false;
        }
        if out.exists() && !force {
            return Err(StoreError::OutputExists.in_file(out));
        }
        let mut units = Vec::new();
        if keep {
            // A commit line without its rename: the last steps are taken again.
            units = sound_units(&dir.join(DATA), &records)?;
            journal.truncate(units.len())?;
        } else {
            // The journal goes first: without lines, nothing else in the directory counts.
            journal.truncate(0)?;
            write_atomic(&dir.join(MANIFEST), pretty(manifest).as_bytes())?;
        }
        let data_path = dir.join(DATA);
        let mut data = open_file(&data_path)?;
        let end = units.last().map_or(0, |unit: &Unit| unit.end);
        rewind(&mut data, end).map_err(Error::io("prepare", &data_path))?;
        sync_dir(&dir)?;
        sync_dir(parent(&dir))?;
        Ok(Job { out, dir, force, units, state: State::Open { journal, data } })
    }

    /// The finished units, in order.
    pub fn units(&self) -> &[Unit] {
        &self.units
    }

    /// Length of the data so far: the end of the last unit.
    pub fn data_len(&self) -> u64 {
        self.units.last().map_or(0, |unit| unit.end)
    }

    /// The file that holds the data until the commit, for checks before it.
    pub fn data_path(&self) -> PathBuf {
        self.dir.join(DATA)
    }

    /// Whether an earlier run had already put the output in place and was stopped before it could
    /// clean up: nothing is left to do but [`Job::commit`].
    pub fn is_committed(&self) -> bool {
        matches!(self.state, State::Committed)
    }

    /// Adds a unit: `write` writes its bytes, which are flushed to the disk before the journal
    /// says so. When anything fails, the unit is not part of the job and may be tried again.
    ///
    /// # Errors
    /// [`StoreError::Io`] with the reason of `write` or of the disk, [`StoreError::JobEnded`] on a job that is
    /// committed.
    pub fn append<F>(&mut self, payload: Value, write: F) -> Result<&Unit>
    where
        F: FnOnce(&mut dyn Write) -> io::Result<()>,
    {
        let start = self.data_len();
        let State::Open { journal, data } = &mut self.state else {
            return Err(StoreError::JobEnded.in_file(&self.out));
        };
        let data_path = self.dir.join(DATA);
        let mut appended = append_data(data, write).map_err(Error::io("write", &data_path));
        if let Ok((bytes, digest)) = &appended {
            let end = start.saturating_add(*bytes);
            let record = Record::Unit { end, digest: digest.clone(), payload: payload.clone() };
            if let Err(error) = journal.append(&record) {
                appended = Err(error);
            }
        }
        match appended {
            Ok((bytes, digest)) => {
                self.units.push(Unit { payload, end: start.saturating_add(bytes), digest });
                Ok(&self.units[self.units.len() - 1])
            }
            Err(error) => {
                let undone = rewind(data, start).is_ok() && journal.truncate(self.units.len()).is_ok();
                if !undone {
                    // The next `open` cuts the remains off.
                    self.state = State::Ended;
                }
                Err(error)
            }
        }
    }

    /// Puts the output in place: renames the data to `final_path` (as a rule the `out` of
    /// [`Job::open`]; it must lie in the same directory), flushes the directory, and removes
    /// `OUT.partial`.
    ///
    /// # Errors
    /// [`StoreError::OutputExists`] when the file has appeared since the job was opened without `force`;
    /// [`StoreError::Io`]. The finished units are kept.
    pub fn commit(mut self, final_path: &Path) -> Result<()> {
        let final_path = output_path(final_path)?;
        let name = match final_path.file_name().and_then(|name| name.to_str()) {
            Some(name) if parent(&final_path) == parent(&self.out) => name.to_owned(),
            _ => {
                let why = "a job's output stays in the directory it was started in: name it there";
                return Err(StoreError::BadOutput { why }.in_file(final_path));
            }
        };
        if final_path.exists() && !self.force && !self.is_committed() {
            return Err(StoreError::OutputExists.in_file(final_path));
        }
        let bytes = self.data_len();
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Ended => return Err(StoreError::JobEnded.in_file(&self.out)),
            State::Committed => {}
            State::Open { mut journal, data } => {
                journal.append(&Record::Commit { name, bytes })?;
                // Windows renames closed files only.
                drop(data);
                let data_path = self.dir.join(DATA);
                fs::rename(&data_path, &final_path).map_err(Error::io("rename to", &final_path))?;
                sync_dir(&self.dir)?;
                sync_dir(parent(&final_path))?;
            }
        }
        self.remove_dir()
    }

    /// Gives the job up: removes `OUT.partial`. An existing output is not touched.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the directory cannot be removed.
    pub fn discard(mut self) -> Result<()> {
        self.state = State::Ended;
        self.remove_dir()
    }

    /// Moves the directory away in one step, so that it is never seen half removed.
    fn remove_dir(&self) -> Result<()> {
        let done = with_suffix(&self.dir, ".done");
        fs::rename(&self.dir, &done).map_err(Error::io("remove", &self.dir))?;
        remove_own_files(&done);
        sync_dir(parent(&self.dir))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.units.is_empty() && matches!(self.state, State::Open { .. }) {
            self.state = State::Ended;
            // What cannot be removed is empty and the next `open` takes it over.
            let _ = self.remove_dir();
        }
    }
}

/// Opens for reading and writing; creates the file if it is not there.
fn open_file(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(Error::io("open", path))
}

/// Cuts the file at `end` and places the cursor there.
fn rewind(data: &mut File, end: u64) -> io::Result<()> {
    data.set_len(end)?;
    data.seek(SeekFrom::Start(end))?;
    data.sync_all()
}

/// Writes and flushes one unit's bytes: how many, and their BLAKE3.
fn append_data<F>(data: &mut File, write: F) -> io::Result<(u64, String)>
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

/// Counts and hashes what passes through.
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

fn units_of(records: &[Record]) -> Vec<Unit> {
    let unit = |record: &Record| match record {
        Record::Unit { end, digest, payload } => {
            Some(Unit { payload: payload.clone(), end: *end, digest: digest.clone() })
        }
        Record::Commit { .. } => None,
    };
    records.iter().filter_map(unit).collect()
}

/// The units whose bytes are really there: none beyond the end of the data, and the bytes of the
/// last one have the digest that the journal holds.
fn sound_units(path: &Path, records: &[Record]) -> Result<Vec<Unit>> {
    let mut units = units_of(records);
    let mut data = match File::open(path) {
        Ok(data) => Some(data),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let len = match &data {
        Some(data) => data.metadata().map_err(Error::io("examine", path))?.len(),
        None => 0,
    };
    units.truncate(units.partition_point(|unit| unit.end <= len));
    // From the end towards the start: flushed data stay; only the newest can have been lost.
    let mut checked = units.len();
    while let Some(last) = checked.checked_sub(1) {
        let start = last.checked_sub(1).map_or(0, |before| units[before].end);
        let Unit { end, digest, .. } = &units[last];
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

/// The directory does not exist or holds nothing but a job's files.
fn check_own(dir: &Path) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("list", dir)(error)),
    };
    for entry in entries {
        let name = entry.map_err(Error::io("list", dir))?.file_name();
        if !OWN_FILES.iter().any(|own| name == *own) {
            let file = name.to_string_lossy().into_owned();
            return Err(StoreError::JobForeignFile { file }.in_file(dir));
        }
    }
    Ok(())
}

/// Removes a job's files and then the directory if it is empty. What stays does no harm.
fn remove_own_files(dir: &Path) {
    for name in OWN_FILES {
        let _ = fs::remove_file(dir.join(name));
    }
    let _ = fs::remove_dir(dir);
}
