//! Lines of JSON files, one at a time, and the faults that any of them can have.
//!
//! **Invariant:** memory is bounded by the limit, also for a file that is one endless line.

use std::io::{BufRead, Read, Result};

/// A line that is no JSON object with the fields that are due.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its variant and its fields mean")]
pub enum LineFault {
    #[error("the line has more than {limit} bytes")]
    TooLong { limit: usize },
    #[error("the line is not UTF-8")]
    NotText,
    #[error("the line is cut off")]
    CutOff,
    #[error("the line is no JSON object: {reason}")]
    NotJson { reason: String },
    #[error("field `{field}`: {reason}")]
    Field { field: String, reason: String },
}

impl LineFault {
    pub(crate) fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Field { field: field.into(), reason: reason.into() }
    }
}

/// Replaces `line` by the next line with its line break. Returns its length, 0 at the end of the input and `None` for a
/// line of more than `limit` bytes before its line break.
pub(crate) fn read_line(input: &mut impl BufRead, limit: usize, line: &mut Vec<u8>) -> Result<Option<usize>> {
    line.clear();
    // One byte more than allowed tells a long line from one that just fits; the line break is extra.
    let read = input.take(limit as u64 + 1).read_until(b'\n', line)?;
    Ok((read <= limit || line.ends_with(b"\n")).then_some(read))
}
