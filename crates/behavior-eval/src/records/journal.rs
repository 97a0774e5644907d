//! The measurements of a student so far: a job that is never committed, one unit per prompt.
//!
//! ```text
//! ROOT/students/<key>.partial/     key = BLAKE3 of the manifest: teacher's recording, student, prompts
//!   a unit's payload               prompt_id, seconds, answer, shape, which columns there are
//!   a unit's bytes, little-endian  ids u32, weights f32, margins f32; the same of local mode; cosines f64;
//!                                  per position divergence f64 and 0 or 1
//! ```
//! **Invariant:** a unit is read back as it was written or not at all: its lengths must fit its shape.

use std::path::{Path, PathBuf};

use gguf_bitnet::{Job, open_regular};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bytes::{read_f32, read_u32, write_f32, write_u32};
use super::error::RecordError;
use super::{file, job};
use crate::model::{Answer, RoutingTable};
use crate::{Error, Result};

/// The measurements on one prompt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StudentRecord {
    pub(crate) prompt_id: String,
    /// The student's own answer.
    pub(crate) answer: Answer,
    /// On the prompt and the teacher's answer.
    pub(crate) routing: RoutingTable,
    /// The same, each router fed the teacher's states.
    pub(crate) local: Option<RoutingTable>,
    /// Cosine with the teacher's final hidden state at each token.
    pub(crate) coherence: Option<Vec<f64>>,
    /// At each stored position of logits: lower bound of the divergence, and whether both find the same token likeliest.
    pub(crate) divergence: Option<Vec<(f64, bool)>>,
}

impl StudentRecord {
    /// The two parts of a unit; the seconds are 0.
    pub(crate) fn encode(&self) -> (Head, Vec<u8>) {
        let head = Head {
            prompt_id: self.prompt_id.clone(),
            seconds: 0.0,
            answer: self.answer.clone(),
            layers: self.routing.n_layers(),
            tokens: self.routing.n,
            top_k: self.routing.top_k,
            local: self.local.is_some(),
            coherence: self.coherence.is_some(),
            divergence: self.divergence.as_ref().map(Vec::len),
        };
        let mut bytes = Vec::new();
        for table in std::iter::once(&self.routing).chain(&self.local) {
            write_u32(&table.ids, &mut bytes);
            write_f32(&table.weights, &mut bytes);
            write_f32(&table.margins, &mut bytes);
        }
        bytes.extend(self.coherence.iter().flatten().flat_map(|x| x.to_le_bytes()));
        for (kl, same) in self.divergence.iter().flatten() {
            bytes.extend(kl.to_le_bytes());
            bytes.push(u8::from(*same));
        }
        (head, bytes)
    }

    /// The record of the two parts of a unit; `None` where they do not fit each other.
    pub(crate) fn decode(head: &Head, bytes: &[u8]) -> Option<StudentRecord> {
        if head.bytes() == Some(bytes.len()) { head.record(bytes) } else { None }
    }
}

/// The measurements of one pass over a student. Dropping it keeps them for the next `StudentJournal::open`.
#[derive(Debug)]
pub(crate) struct StudentJournal {
    job: Job,
    path: PathBuf,
    heads: Vec<Head>,
    resumed: u64,
}

/// The payload of a unit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    prompt_id: String,
    seconds: f64,
    answer: Answer,
    layers: usize,
    tokens: usize,
    top_k: usize,
    local: bool,
    coherence: bool,
    /// Positions with a divergence.
    divergence: Option<usize>,
}

impl StudentJournal {
    /// Where the journal of `manifest` lies below `root`.
    fn path(root: &Path, manifest: &Value) -> PathBuf {
        root.join("students").join(blake3::hash(manifest.to_string().as_bytes()).to_string())
    }

    /// Starts the journal of `manifest` below `root`, or continues it.
    pub(crate) fn open(root: &Path, manifest: &Value) -> Result<Self> {
        let path = Self::path(root, manifest);
        let job = job::open(&path, manifest)?;
        let heads = job.units().iter().map(|unit| Head::deserialize(&unit.payload));
        let heads: Vec<Head> = heads.collect::<Result<_, _>>().map_err(|error| damaged(&path, error.to_string()))?;
        Ok(Self { job, path, resumed: heads.len() as u64, heads })
    }

    /// Prompts that are done.
    pub(crate) fn len(&self) -> usize {
        self.heads.len()
    }

    /// Prompts that were done when it was opened.
    pub(crate) fn resumed(&self) -> u64 {
        self.resumed
    }

    /// Seconds of computing so far.
    pub(crate) fn seconds(&self) -> f64 {
        self.heads.iter().map(|head| head.seconds).sum()
    }

    /// The prompts that are done are the first of these.
    pub(crate) fn check_order<'a>(&self, prompts: impl Iterator<Item = &'a str>) -> Result<()> {
        match self.heads.iter().zip(prompts).find(|(head, given)| head.prompt_id != *given) {
            None => Ok(()),
            Some((Head { prompt_id, .. }, given)) => {
                Err(RecordError::PromptOrder { recorded: prompt_id.clone(), given: given.to_owned() }.into())
            }
        }
    }

    pub(crate) fn append(&mut self, record: &StudentRecord, seconds: f64) -> Result<()> {
        let (mut head, bytes) = record.encode();
        head.seconds = seconds;
        let payload = serde_json::to_value(&head).map_err(|error| damaged(&self.path, error.to_string()))?;
        self.job.append(payload, |out| out.write_all(&bytes))?;
        self.heads.push(head);
        Ok(())
    }

    /// Reads one prompt back.
    pub(crate) fn read(&self, index: usize) -> Result<StudentRecord> {
        let (head, units) = (&self.heads[index], self.job.units());
        let start = index.checked_sub(1).map_or(0, |before| units[before].end);
        let len = units[index].end - start;
        let wrong = |reason: &str| damaged(&self.path, format!("prompt {}: {reason}", head.prompt_id));
        if head.bytes() != usize::try_from(len).ok() {
            return Err(wrong("its length does not fit its shape"));
        }
        let path = self.job.data_path();
        let bytes = file::read_at(&open_regular(&path)?, &path, start, len)?;
        if blake3::hash(&bytes).to_string() != units[index].digest {
            return Err(wrong("its bytes are not those that were written"));
        }
        head.record(&bytes).ok_or_else(|| wrong("it is cut off"))
    }

    pub(crate) fn answer(&self, index: usize) -> &Answer {
        &self.heads[index].answer
    }

    pub(crate) fn discard(self) -> Result<()> {
        Ok(self.job.discard()?)
    }
}

fn damaged(path: &Path, reason: String) -> Error {
    Error::Records(RecordError::Journal { path: path.to_owned(), reason })
}

impl Head {
    /// Bytes of a unit of this shape; `None` for a shape that no file has.
    fn bytes(&self) -> Option<usize> {
        let rows = self.layers.checked_mul(self.tokens)?;
        let table = rows.checked_mul(self.top_k)?.checked_mul(8)?.checked_add(rows.checked_mul(4)?)?;
        let tables = table.checked_mul(1 + usize::from(self.local))?;
        let cosines = if self.coherence { self.tokens.checked_mul(8)? } else { 0 };
        tables.checked_add(cosines)?.checked_add(self.divergence.unwrap_or(0).checked_mul(9)?)
    }

    /// Reads a unit of [`Head::bytes`] bytes.
    fn record(&self, mut bytes: &[u8]) -> Option<StudentRecord> {
        let (prompt_id, answer) = (self.prompt_id.clone(), self.answer.clone());
        let routing = self.table(&mut bytes)?;
        let local = if self.local { Some(self.table(&mut bytes)?) } else { None };
        let (cosines, rows) = bytes.split_at_checked(if self.coherence { 8 * self.tokens } else { 0 })?;
        let cosines = cosines.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b));
        let rows = rows.as_chunks::<9>().0.iter().map(|[kl @ .., same]| (f64::from_le_bytes(*kl), *same == 1));
        let coherence = self.coherence.then(|| cosines.collect());
        let divergence = self.divergence.map(|_| rows.collect());
        Some(StudentRecord { prompt_id, answer, routing, local, coherence, divergence })
    }

    fn table(&self, bytes: &mut &[u8]) -> Option<RoutingTable> {
        let rows = self.layers * self.tokens;
        let mut take = |n: usize| bytes.split_off(..4 * n);
        let mut table = RoutingTable::new(self.tokens, self.top_k);
        table.ids = read_u32(take(rows * self.top_k)?);
        table.weights = read_f32(take(rows * self.top_k)?);
        table.margins = read_f32(take(rows)?);
        Some(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AnswerEnd;
    use serde_json::json;

    fn record(prompt_id: &str, full: bool) -> StudentRecord {
        let mut routing = RoutingTable::new(3, 2);
        routing.push_layer(&[0, 1, 2, 5, 0, 7], &[0.5, 0.25, 1.5, -0.0, 3.25, 1e-30], &[0.1, 0.2, 0.3]);
        StudentRecord {
            prompt_id: prompt_id.into(),
            answer: Answer { tokens: vec![7, 8], text: "“so”".into(), stop_reason: AnswerEnd::Length },
            local: full.then(|| routing.clone()),
            routing,
            coherence: full.then(|| vec![0.1 + 0.2, -1.0, 1.0 / 3.0]),
            divergence: full.then(|| vec![(0.7, true), (1e-17, false)]),
        }
    }

    #[test]
    fn what_was_measured_is_read_back_bit_for_bit_after_a_stop() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = json!({ "student": "a" });
        let mut journal = StudentJournal::open(dir.path(), &manifest).unwrap();
        journal.append(&record("p-1", true), 0.5).unwrap();
        drop(journal);
        let mut journal = StudentJournal::open(dir.path(), &manifest).unwrap();
        assert_eq!((journal.len(), journal.resumed(), journal.seconds()), (1, 1, 0.5));
        journal.append(&record("p-2", false), 0.25).unwrap();
        assert_eq!(journal.read(0).unwrap(), record("p-1", true));
        assert_eq!(journal.read(1).unwrap(), record("p-2", false));
        assert_eq!(journal.seconds(), 0.75);
        assert!(journal.check_order(["p-1", "p-2", "p-3"].into_iter()).is_ok());
        assert!(matches!(
            journal.check_order(["p-1", "p-3"].into_iter()),
            Err(Error::Records(RecordError::PromptOrder { .. }))
        ));
        let other = StudentJournal::open(dir.path(), &json!({ "student": "b" })).unwrap();
        assert_eq!(other.len(), 0, "another student has another journal");
        drop(other);
        journal.discard().unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("students")).unwrap().count(), 0);
    }

    #[test]
    fn bytes_that_changed_since_are_refused_wherever_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = StudentJournal::open(dir.path(), &json!({})).unwrap();
        journal.append(&record("p-1", true), 0.5).unwrap();
        journal.append(&record("p-2", true), 0.5).unwrap();
        let data = journal.job.data_path();
        drop(journal);
        let mut bytes = std::fs::read(&data).unwrap();
        bytes[7] ^= 1;
        std::fs::write(&data, bytes).unwrap();
        let journal = StudentJournal::open(dir.path(), &json!({})).unwrap();
        let error = journal.read(0).unwrap_err().to_string();
        assert!(error.contains("prompt p-1: its bytes are not those") && error.contains("remove it"), "{error}");
        assert_eq!(journal.read(1).unwrap(), record("p-2", true));
        drop(journal);
        let partial = data.parent().unwrap();
        for (manifest, reason) in [("{}", "its `a` is absent where 1 is due"), ("", "is not JSON")] {
            std::fs::write(partial.join("manifest.json"), manifest).unwrap();
            let path = StudentJournal::path(dir.path(), &json!({}));
            let error = job::open(&path, &json!({ "a": 1 })).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("remove it") && !error.contains("force"), "{error}");
        }
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = StudentJournal::open(dir.path(), &json!({})).unwrap();
        journal.append(&record("p-1", true), 0.5).unwrap();
        let changes: [fn(&mut Head); 3] =
            [|head| head.tokens = usize::MAX, |head| head.top_k = 1, |head| head.local = false];
        for change in changes {
            let good = journal.heads[0].clone();
            change(&mut journal.heads[0]);
            assert!(matches!(journal.read(0), Err(Error::Records(RecordError::Journal { .. }))));
            journal.heads[0] = good;
        }
        assert!(journal.read(0).is_ok());
    }
}
