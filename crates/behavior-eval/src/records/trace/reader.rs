//! Reading a trace line by line, trusting none of it.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use gguf_bitnet::open_regular;

use super::record::TraceRecord;
use crate::records::format::MAX_LINE_BYTES;
use crate::records::{RecordError, TraceDefect};
use crate::text::{self, LineFault};
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
    /// [`Error::Store`] when it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self::new(BufReader::new(open_regular(path)?), path))
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

    /// Checks a record's place among those before it.
    fn place(&mut self, record: &TraceRecord) -> Result<(), TraceDefect> {
        let (prompt_id, key) = (record.prompt_id.clone(), (record.token_idx, record.layer_idx));
        match &self.open {
            Some((open, _)) if *open != prompt_id => return Err(TraceDefect::Unfinished { prompt_id: open.clone() }),
            Some((_, last)) if key <= *last => {
                return Err(TraceDefect::Repeated { prompt_id, token: key.0, layer: key.1 });
            }
            None if self.finished.contains(&prompt_id) => return Err(TraceDefect::Reopened { prompt_id }),
            _ => {}
        }
        if record.is_final() {
            self.open = None;
            self.finished.insert(prompt_id);
        } else {
            self.open = Some((prompt_id, key));
        }
        Ok(())
    }

    fn read_record(&mut self) -> Result<Option<TraceRecord>> {
        self.line += 1;
        let read = text::read_line(&mut self.input, MAX_LINE_BYTES, &mut self.buffer);
        let read = read.map_err(|source| Error::File { path: self.path.clone(), source })?;
        match (read, self.open.take_if(|_| read == Some(0))) {
            (None, _) => return Err(self.defect(LineFault::TooLong { limit: MAX_LINE_BYTES }.into())),
            (_, Some((prompt_id, _))) => return Err(self.defect(TraceDefect::Unfinished { prompt_id })),
            (Some(0), None) => return Ok(None),
            (Some(_), None) => {}
        }
        let line = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
        let text = std::str::from_utf8(line).map_err(|_| self.defect(LineFault::NotText.into()))?;
        let record = TraceRecord::from_json(text).and_then(|record| self.place(&record).map(|()| record));
        record.map(Some).map_err(|defect| self.defect(defect))
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
