//! The objects of a JSONL file, one at a time.

use std::io::{BufRead, BufReader, Cursor};
use std::path::{Path, PathBuf};

use gguf_bitnet::{open_regular, without_mark};

use super::error::SuiteError;
use super::fault::SuiteFault;
use crate::text::{self, Fields, LineFault};
use crate::{Error, Result};

/// The longest line that is read, in bytes.
pub(crate) const LONGEST_LINE_BYTES: usize = 16 << 20;

/// A file that is read line by line.
pub(crate) struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    buffer: Vec<u8>,
    number: u64,
    hash: blake3::Hasher,
}

impl Lines {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = open_regular(path)?;
        Ok(Self::new(path, Box::new(BufReader::new(file))))
    }

    /// The lines of a text that was read already; `name` stands for it in messages.
    pub(crate) fn of(name: &str, text: &str) -> Self {
        Self::new(Path::new(name), Box::new(Cursor::new(text.to_owned())))
    }

    fn new(path: &Path, reader: Box<dyn BufRead>) -> Self {
        Self { path: path.to_owned(), reader, buffer: Vec::new(), number: 0, hash: blake3::Hasher::new() }
    }

    /// The next line that is not blank, as an object; `None` at the end of the file.
    pub(crate) fn next_object(&mut self) -> Result<Option<Fields>> {
        loop {
            let read = text::read_line(&mut self.reader, LONGEST_LINE_BYTES, &mut self.buffer);
            let read = read.map_err(|source| Error::File { path: self.path.clone(), source })?;
            if read == Some(0) {
                return Ok(None);
            }
            self.number += 1;
            if read.is_none() {
                return Err(self.fault(LineFault::TooLong { limit: LONGEST_LINE_BYTES }));
            }
            self.hash.update(&self.buffer);
            let text = std::str::from_utf8(&self.buffer).map_err(|_| self.fault(LineFault::NotText))?;
            let text = if self.number == 1 { without_mark(text) } else { text }.trim();
            if !text.is_empty() {
                return Fields::parse(text).map(Some).map_err(|fault| self.fault(fault));
            }
        }
    }

    /// Number of the line that was read last, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// BLAKE3 of all bytes that were read.
    pub(crate) fn hash(&self) -> blake3::Hash {
        self.hash.finalize()
    }

    /// A fault of the line that was read last.
    pub(crate) fn fault(&self, fault: impl Into<SuiteFault>) -> Error {
        self.fault_at(self.number, fault)
    }

    /// A fault of an earlier line.
    pub(crate) fn fault_at(&self, line: u64, fault: impl Into<SuiteFault>) -> Error {
        Error::Suite(SuiteError::Line { file: self.path.clone(), line, fault: fault.into() })
    }
}
