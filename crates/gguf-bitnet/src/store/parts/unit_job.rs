//! A resumable job of numbered units that writes all units, or a part with those of one shard.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::format::{EndDigest, EndLine, Header, MAX_REASON_CHARS, Names, UnitLine, VERSION, text};
use super::shard::Shard;
use crate::error::{Error, Result};
use crate::store::job::{Job, JobUnit};

/// How a job is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Units of the whole job.
    pub units: usize,
    /// The share that is done; `None` for all units, whose bytes are then written without anything between them.
    pub shard: Option<Shard>,
}

/// The result of one unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitResult {
    /// Its bytes, which follow from the manifest and the number of the unit alone.
    pub bytes: Vec<u8>,
    /// Things of the unit that failed; they are recorded in its bytes, and the job goes on.
    pub failed: u64,
    /// The reason of the first of them. A reason of more than 1,000 characters is cut.
    pub failure: Option<String>,
}

/// A [`Job`] whose units have numbers. Dropping it keeps the finished units for the next [`UnitJob::open`].
///
/// ```
/// use gguf_bitnet::{Cut, Parts, UnitJob, UnitResult};
/// # let dir = tempfile::tempdir().unwrap();
/// # let part = |i: usize| dir.path().join(format!("{i}.part"));
/// let manifest = serde_json::json!({ "input": "abcdefg" });
/// for i in 1..=2 {
///     let shard = Some(format!("{i}/2").parse().unwrap());
///     let mut job = UnitJob::open(&part(i), &manifest, Cut { units: 7, shard }, false)?;
///     while let Some(unit) = job.next_unit() {
///         job.append(&UnitResult { bytes: vec![b'A' + unit as u8], ..UnitResult::default() })?;
///     }
///     job.finish()?;
/// }
/// let parts = Parts::open(&[part(2), part(1)])?;
/// let units: Vec<Vec<u8>> = (0..parts.units()).map(|unit| parts.read(unit)).collect::<Result<_, _>>()?;
/// assert_eq!(units.concat(), b"ABCDEFG");
/// # Ok::<(), gguf_bitnet::Error>(())
/// ```
#[derive(Debug)]
pub struct UnitJob {
    job: Job,
    out: PathBuf,
    cut: Cut,
    names: Names,
    /// Lines of the finished units.
    done: Vec<UnitLine>,
}

impl UnitJob {
    /// Starts the job that makes `out`, or continues it; see [`Job::open`]. A shard of a job has another manifest than the
    /// whole, so that neither is continued as the other.
    ///
    /// # Errors
    /// As [`Job::open`].
    pub fn open(out: &Path, manifest: &Value, cut: Cut, force: bool) -> Result<UnitJob> {
        let header = cut.shard.map(|shard| Header {
            part: VERSION,
            shard: shard.to_string(),
            units: cut.units,
            manifest: manifest.clone(),
        });
        let job_manifest = match &header {
            None => manifest.clone(),
            Some(header) => json!({ "shard": header.shard, "units": header.units, "manifest": manifest }),
        };
        let mut job = Job::open(out, &job_manifest, force)?;
        if let Some(header) = header
            && job.units().is_empty()
            && !job.is_committed()
        {
            let line = text(&header)?;
            job.append(json!({ "line": "header" }), |data| data.write_all(line.as_bytes()))?;
        }
        let line = |unit: &JobUnit| unit.payload.get("unit").cloned().map(serde_json::from_value);
        let done = job.units().iter().filter_map(line).collect::<Result<Vec<UnitLine>, _>>();
        let done = done.map_err(|error| Error::io("read", job.data_path())(error.into()))?;
        Ok(UnitJob { job, out: out.to_owned(), cut, names: Names::of(manifest), done })
    }

    /// The number of the next unit; `None` when all of them are done.
    #[must_use]
    pub fn next_unit(&self) -> Option<usize> {
        let next = self.cut.shard.unwrap_or(Shard::WHOLE).units(self.cut.units).nth(self.done.len());
        next.filter(|_| !self.job.is_committed())
    }

    /// Units that are done, and units that this job does.
    #[must_use]
    pub fn progress(&self) -> (usize, usize) {
        (self.done.len(), self.cut.shard.unwrap_or(Shard::WHOLE).units(self.cut.units).count())
    }

    /// Things that failed so far, and the reason of the first.
    #[must_use]
    pub fn failed(&self) -> (u64, Option<&str>) {
        let first = self.done.iter().find_map(|line| line.failure.as_deref());
        (self.done.iter().map(|line| line.failed).sum(), first)
    }

    /// Adds the result of the [next](UnitJob::next_unit) unit.
    ///
    /// # Errors
    /// As [`Job::append`]; the unit may be tried again.
    pub fn append(&mut self, result: &UnitResult) -> Result<()> {
        let Some(unit) = self.next_unit() else { return Ok(()) };
        let line = UnitLine {
            unit,
            name: self.names.name(unit),
            bytes: result.bytes.len() as u64,
            digest: blake3::hash(&result.bytes).to_string(),
            failed: result.failed,
            failure: result.failure.as_deref().map(shortened),
        };
        let before = if self.cut.shard.is_some() { text(&line)? } else { String::new() };
        let payload = json!({ "unit": line });
        self.job.append(payload, |data| {
            data.write_all(before.as_bytes())?;
            data.write_all(&result.bytes)
        })?;
        self.done.push(line);
        Ok(())
    }

    /// The file that holds the output until [`UnitJob::finish`]; `None` when an earlier run had put the output in place.
    #[must_use]
    pub fn data_path(&self) -> Option<PathBuf> {
        (!self.job.is_committed()).then(|| self.job.data_path())
    }

    /// Puts the output in place.
    ///
    /// # Errors
    /// As [`Job::commit`].
    pub fn finish(mut self) -> Result<()> {
        let ended =
            self.job.units().last().is_some_and(|unit| unit.payload.get("line").is_some_and(|line| line == "end"));
        if self.cut.shard.is_some() && !ended && !self.job.is_committed() {
            let mut digest = EndDigest::default();
            self.done.iter().for_each(|line| digest.add(line));
            let line = text(&EndLine { end: self.done.len(), digest: digest.finish() })?;
            self.job.append(json!({ "line": "end" }), |data| data.write_all(line.as_bytes()))?;
        }
        self.job.commit(&self.out)
    }
}

/// The beginning of a reason, which may quote a whole input; `…` stands for the rest.
fn shortened(reason: &str) -> String {
    if reason.chars().nth(MAX_REASON_CHARS).is_none() {
        return reason.to_owned();
    }
    reason.chars().take(MAX_REASON_CHARS - 1).chain(['…']).collect()
}
