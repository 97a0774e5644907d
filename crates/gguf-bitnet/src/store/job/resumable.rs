//! A job that is open: opening, appending units, committing.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::data::{JobUnit, append_data, open_file, rewind, units_of, whole_units};
use super::directory::{DATA, JOURNAL, MANIFEST, STATE, check_own, remove_own_files, remove_states};
use super::journal::{Journal, Record};
use super::manifest::{check_manifest, pretty};
use crate::error::{Error, Locate, Result};
use crate::store::StoreError;
use crate::store::disk::{parent, sync_dir, with_suffix, write_atomic};
use crate::store::path::output_path;

/// An open job. Dropping it keeps the finished units for the next [`Job::open`]; a job without
/// a finished unit leaves nothing behind.
#[derive(Debug)]
pub struct Job {
    out: PathBuf,
    dir: PathBuf,
    force: bool,
    units: Vec<JobUnit>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Units can be appended.
    Open { journal: Journal, data: File },
    /// The output is in place; only the job's directory remains to be removed.
    Committed,
    /// The job was committed or has failed; further calls are errors.
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
        // A kill may have left the directory of an ended job. It is removed even if the checks below refuse this job.
        remove_own_files(&with_suffix(&dir, ".done"));
        Job::check(&out, force)?;
        Job::open_in(out, dir, manifest, force)
    }

    /// Makes the checks of [`Job::open`] that do not need the manifest, and changes nothing: for callers that take long
    /// to make their manifest. Returns the number of bytes that an unfinished job holds already.
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
                // The output exists, so the user must decide about it first; the manifest does not matter yet.
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
            units = whole_units(&dir.join(DATA), &records)?;
            journal.truncate(units.len())?;
        } else {
            // The journal goes first: without lines, nothing else in the directory counts.
            journal.truncate(0)?;
            remove_states(&dir);
            write_atomic(&dir.join(MANIFEST), pretty(manifest).as_bytes())?;
        }
        let data_path = dir.join(DATA);
        let mut data = open_file(&data_path)?;
        let end = units.last().map_or(0, |unit: &JobUnit| unit.end);
        rewind(&mut data, end).map_err(Error::io("prepare", &data_path))?;
        sync_dir(&dir)?;
        sync_dir(parent(&dir))?;
        Ok(Job { out, dir, force, units, state: State::Open { journal, data } })
    }

    /// The finished units, in order.
    pub fn units(&self) -> &[JobUnit] {
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

    /// Gives the file that keeps a state by its number, for a caller whose units do not follow from the inputs alone. The
    /// caller writes it whole, removes it when it is no longer needed, and checks it when it reads it back; it goes with the
    /// job.
    pub fn states(&self) -> impl Fn(usize) -> PathBuf + use<> {
        let dir = self.dir.clone();
        move |number| dir.join(format!("{STATE}{number}"))
    }

    /// The file of state `number` of the job that makes `out`, for a caller that needs it before it can make its manifest. Its
    /// contents are those of this job only if [`Job::open`] then accepts the manifest without `force`.
    ///
    /// # Errors
    /// [`StoreError::BadOutput`] and [`StoreError::Io`].
    pub fn state_path(out: &Path, number: usize) -> Result<PathBuf> {
        Ok(with_suffix(&output_path(out)?, ".partial").join(format!("{STATE}{number}")))
    }

    /// Whether an earlier run had put the output in place and was stopped before it could clean up: only
    /// [`Job::commit`] is left to be called.
    pub fn is_committed(&self) -> bool {
        matches!(self.state, State::Committed)
    }

    /// Adds a unit: `write` writes its bytes, which are flushed to the disk before the journal records the unit. When
    /// anything fails, the unit is not part of the job and may be tried again.
    ///
    /// # Errors
    /// [`StoreError::Io`] with the reason of `write` or of the disk, [`StoreError::JobEnded`] on a job that is
    /// committed.
    pub fn append<F>(&mut self, payload: Value, write: F) -> Result<&JobUnit>
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
                self.units.push(JobUnit { payload, end: start.saturating_add(bytes), digest });
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
                // Windows cannot rename a file that is open.
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
            // If the removal fails, the next `open` takes the empty directory over.
            let _ = self.remove_dir();
        }
    }
}
