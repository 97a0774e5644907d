//! The objects of a JSONL file, one at a time, and their fields.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::SuiteError;
use super::fault::SuiteFault;
use crate::text::{self, JsonFault, kind, parse};
use crate::{Error, Result};

/// The longest line that is read, in bytes.
pub(crate) const LONGEST_LINE_BYTES: usize = 16 << 20;

/// A file that is read line by line.
pub(crate) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    buffer: Vec<u8>,
    number: u64,
    hash: blake3::Hasher,
}

impl Lines {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::new(file),
            buffer: Vec::new(),
            number: 0,
            hash: blake3::Hasher::new(),
        })
    }

    /// The next line that is not blank, as an object; `None` at the end of the file.
    pub(crate) fn next_object(&mut self) -> Result<Option<Map<String, Value>>> {
        loop {
            let read = text::read_line(&mut self.reader, LONGEST_LINE_BYTES, &mut self.buffer);
            let read = read.map_err(|source| Error::File { path: self.path.clone(), source })?;
            if read == Some(0) {
                return Ok(None);
            }
            self.number += 1;
            if read.is_none() {
                return Err(self.fault(SuiteFault::LineTooLong { limit: LONGEST_LINE_BYTES }));
            }
            self.hash.update(&self.buffer);
            let text = std::str::from_utf8(&self.buffer).map_err(|_| self.fault(SuiteFault::NotUtf8))?.trim();
            if text.is_empty() {
                continue;
            }
            return match parse(text) {
                Ok(Value::Object(object)) => Ok(Some(object)),
                Ok(other) => Err(self.fault(SuiteFault::NotAnObject { got: kind(&other) })),
                Err(JsonFault::Repeated { field }) => Err(self.fault(SuiteFault::RepeatedField { field })),
                Err(fault) => Err(self.fault(SuiteFault::NotJson { reason: fault.to_string() })),
            };
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
    pub(crate) fn fault(&self, fault: SuiteFault) -> Error {
        self.fault_at(self.number, fault)
    }

    /// A fault of an earlier line.
    pub(crate) fn fault_at(&self, line: u64, fault: SuiteFault) -> Error {
        Error::Suite(SuiteError::Line { file: self.path.clone(), line, fault })
    }
}

pub(crate) fn text(object: &mut Map<String, Value>, field: &'static str) -> Result<String, SuiteFault> {
    optional_text(object, field)?.ok_or(SuiteFault::Missing { field })
}

/// A string field with at least one character.
pub(crate) fn full_text(object: &mut Map<String, Value>, field: &'static str) -> Result<String, SuiteFault> {
    match text(object, field)? {
        text if text.is_empty() => Err(SuiteFault::Empty { field }),
        text => Ok(text),
    }
}

/// A string field that may be missing or null.
pub(crate) fn optional_text(
    object: &mut Map<String, Value>,
    field: &'static str,
) -> Result<Option<String>, SuiteFault> {
    match object.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(SuiteFault::WrongType { field, got: kind(&other), want: "a string" }),
    }
}

/// A list of strings that may be missing or null.
pub(crate) fn optional_list(
    object: &mut Map<String, Value>,
    field: &'static str,
) -> Result<Option<Vec<String>>, SuiteFault> {
    const WANT: &str = "a list of strings";
    let list = match object.remove(field) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(SuiteFault::WrongType { field, got: kind(&other), want: WANT }),
    };
    let strings = list.into_iter().map(|item| match item {
        Value::String(text) => Ok(text),
        other => Err(SuiteFault::WrongType { field, got: kind(&other), want: WANT }),
    });
    strings.collect::<Result<_, _>>().map(Some)
}
