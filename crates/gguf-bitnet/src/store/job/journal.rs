//! The journal of a job: one line per record, each with a checksum over all lines so far.
//!
//! ```text
//! {"check":"0123456789abcdef","record":{"unit":{"end":4096,"digest":"...","payload":{...}}}}
//! ```
//! `check` is the start of BLAKE3(previous check, text of the record). A line without its line
//! end, with a wrong check or with an impossible record ends the journal: it and everything after
//! it is cut off.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::store::read::read_all;

/// Most bytes of a journal: a line for each of a million units.
const MAX_BYTES: u64 = 1 << 30;
const CHECK_CHARS: usize = 16;
const BEFORE_CHECK: &str = r#"{"check":""#;
const BEFORE_RECORD: &str = r#"","record":"#;
const AFTER_RECORD: &str = "}";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Record {
    /// A unit whose bytes end at `end`.
    Unit { end: u64, digest: String, payload: Value },
    /// The data has been, or is about to be, renamed.
    Commit { name: String, bytes: u64 },
}

/// The open, locked journal file.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    /// End of each valid line in the file and its check.
    lines: Vec<(u64, String)>,
}

impl Journal {
    /// Reads the valid lines. The file itself is not changed.
    pub(super) fn read(file: File, path: PathBuf) -> Result<(Journal, Vec<Record>)> {
        let text = read_all(&file, &path, MAX_BYTES)?;
        let (mut lines, mut records): (Vec<(u64, String)>, Vec<Record>) = Default::default();
        let (mut at, mut data_end) = (0u64, 0u64);
        for line in text.split_inclusive(|&b| b == b'\n') {
            let before = lines.last().map_or("", |(_, check)| check);
            let Some((check, record)) = parse_line(line, before) else { break };
            match &record {
                Record::Unit { end, .. } if *end >= data_end => data_end = *end,
                Record::Commit { bytes, .. } if *bytes == data_end => {}
                _ => break,
            }
            let is_commit = matches!(record, Record::Commit { .. });
            at = at.saturating_add(line.len() as u64);
            lines.push((at, check));
            records.push(record);
            if is_commit {
                break;
            }
        }
        Ok((Journal { file, path, lines }, records))
    }

    /// Adds a line and flushes it to the disk.
    pub(super) fn append(&mut self, record: &Record) -> Result<()> {
        let invalid = |error: serde_json::Error| Error::io("write", &self.path)(error.into());
        let body = serde_json::to_string(record).map_err(invalid)?;
        let before = self.lines.last().map_or("", |(_, check)| check);
        let check = check_of(before, body.as_bytes());
        let line = format!("{BEFORE_CHECK}{check}{BEFORE_RECORD}{body}{AFTER_RECORD}\n");
        let start = self.end();
        let mut write = || {
            self.file.seek(SeekFrom::Start(start))?;
            self.file.write_all(line.as_bytes())?;
            self.file.sync_data()
        };
        write().map_err(Error::io("write", &self.path))?;
        self.lines.push((start.saturating_add(line.len() as u64), check));
        Ok(())
    }

    /// Keeps the first `n` lines and flushes the file.
    pub(super) fn truncate(&mut self, n: usize) -> Result<()> {
        self.lines.truncate(n);
        let end = self.end();
        self.file.set_len(end).and_then(|()| self.file.sync_all()).map_err(Error::io("cut", &self.path))
    }

    fn end(&self) -> u64 {
        self.lines.last().map_or(0, |(end, _)| *end)
    }
}

fn check_of(before: &str, body: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before.as_bytes()).update(body);
    let mut hex = hasher.finalize().to_hex().to_string();
    hex.truncate(CHECK_CHARS);
    hex
}

fn parse_line(line: &[u8], before: &str) -> Option<(String, Record)> {
    let rest = line.strip_prefix(BEFORE_CHECK.as_bytes())?;
    let (check, rest) = rest.split_at_checked(CHECK_CHARS)?;
    let body =
        rest.strip_prefix(BEFORE_RECORD.as_bytes())?.strip_suffix(b"\n")?.strip_suffix(AFTER_RECORD.as_bytes())?;
    if check_of(before, body).as_bytes() != check {
        return None;
    }
    let record = serde_json::from_slice(body).ok()?;
    Some((String::from_utf8(check.to_vec()).ok()?, record))
}
