//! Lines of a text of any length, one at a time.
//!
//! **Invariant:** memory is bounded by the limit, also for a file that is one endless line.

use std::io::{BufRead, Read, Result};

/// Replaces `line` by the next line with its line break. Returns its length, 0 at the end of the input and `None` for a
/// line of more than `limit` bytes before its line break.
pub(crate) fn read_line(input: &mut impl BufRead, limit: usize, line: &mut Vec<u8>) -> Result<Option<usize>> {
    line.clear();
    // One byte more than allowed tells a long line from one that just fits; the line break is extra.
    let read = input.take(limit as u64 + 1).read_until(b'\n', line)?;
    Ok((read <= limit || line.ends_with(b"\n")).then_some(read))
}
