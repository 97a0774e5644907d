//! Reading a trace line by line, trusting none of it.

use crate::records::format::MAX_LINE_BYTES;
use crate::records::{RecordError, TraceDefect};
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::record::TraceRecord;
use crate::{Error, Result};

/// The records of a trace, in order. Ends after the first error.
///
/// Memory: one line and the id of every prompt.
///
/// ```
/// use behavior_eval::records::trace::TraceReader;
/// let lines = "{\"version\":1,\"prompt_id\":\"p-1\"}\n";
/// let error = TraceReader::new(lines.as_bytes(), "my.jsonl").next().unwrap().unwrap_err();
/// assert_eq!(error.to_string(), "my.jsonl line 1: field `token_idx`: it is missing");
/// ```
#[derive(Debug)]
pub struct TraceReader<R> {
    input: R,
    path: PathBuf,
    line: u64,
    ended: bool,
    finished: HashSet<String>,
    /// The open prompt with the key of its last line.
    open: Option<(String, (u64, u32))>,
    buffer: Vec<u8>,
}

impl TraceReader<BufReader<File>> {
    /// Opens a trace file.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        if !std::fs::metadata(path).map_err(failed)?.is_file() {
            return Err(failed(std::io::Error::other("it is no file")));
        }
        Ok(Self::new(BufReader::new(File::open(path).map_err(failed)?), path))
    }
}

impl<R: BufRead> TraceReader<R> {
    /// Reads from anything; `path` is for messages.
    pub fn new(input: R, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { input, path, line: 0, ended: false, finished: HashSet::new(), open: None, buffer: Vec::new() }
    }

    fn defect(&self, defect: TraceDefect) -> Error {
        Error::Records(RecordError::Trace { path: self.path.clone(), line: self.line, defect })
    }

    /// The next line without its end; `None` at the end of the file.
    fn read_line(&mut self) -> Result<Option<()>> {
        self.buffer.clear();
        self.line += 1;
        let cap = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX) + 1;
        let read = (&mut self.input).take(cap).read_until(b'\n', &mut self.buffer);
        let read = read.map_err(|source| Error::File { path: self.path.clone(), source })?;
        if read == 0 {
            return Ok(None);
        }
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
        } else if self.buffer.len() > MAX_LINE_BYTES {
            return Err(self.defect(TraceDefect::TooLong));
        }
        Ok(Some(()))
    }

    /// Checks a record's place among those before it.
    fn place(&mut self, record: &TraceRecord) -> std::result::Result<(), TraceDefect> {
        let key = (record.token_idx, record.layer_idx);
        match &self.open {
            Some((open, last)) if *open == record.prompt_id && key <= *last => {
                let prompt_id = record.prompt_id.clone();
                return Err(TraceDefect::Repeated { prompt_id, token: key.0, layer: key.1 });
            }
            Some((open, _)) if *open == record.prompt_id => {}
            Some((prompt_id, _)) => return Err(TraceDefect::Unfinished { prompt_id: prompt_id.clone() }),
            None if self.finished.contains(&record.prompt_id) => {
                return Err(TraceDefect::Reopened { prompt_id: record.prompt_id.clone() });
            }
            None => {}
        }
        self.open = if record.is_final() {
            self.finished.insert(record.prompt_id.clone());
            None
        } else {
            Some((record.prompt_id.clone(), key))
        };
        Ok(())
    }

    fn read_record(&mut self) -> Result<Option<TraceRecord>> {
        if self.read_line()?.is_none() {
            return match self.open.take() {
                Some((prompt_id, _)) => Err(self.defect(TraceDefect::Unfinished { prompt_id })),
                None => Ok(None),
            };
        }
        let text = std::str::from_utf8(&self.buffer).map_err(|_| self.defect(TraceDefect::NotText))?;
        let record = TraceRecord::from_json(text).map_err(|defect| self.defect(defect))?;
        self.place(&record).map_err(|defect| self.defect(defect))?;
        Ok(Some(record))
    }
}

impl<R: BufRead> Iterator for TraceReader<R> {
    type Item = Result<TraceRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let record = self.read_record().transpose();
        self.ended = !matches!(record, Some(Ok(_)));
        record
    }
}
