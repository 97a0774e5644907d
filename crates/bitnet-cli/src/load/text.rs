//! Texts: a file, or standard input.

use std::path::Path;

use anyhow::Result;

/// Most bytes of a text: a prompt, or the text of a measurement.
const MAX_TEXT_BYTES: u64 = 256 << 20;

/// Reads a text file, or standard input when the name is `-`. A byte order mark is no part of the text.
///
/// # Errors
/// A file that is no regular file or too large, and bytes that are not UTF-8.
pub(crate) fn read_text(path: &str) -> Result<String> {
    read_at_most(Path::new(path), MAX_TEXT_BYTES)
}

/// As [`read_text`], of at most `most` bytes.
///
/// # Errors
/// As [`read_text`].
pub(crate) fn read_at_most(path: &Path, most: u64) -> Result<String> {
    Ok(match path == Path::new("-") {
        true => gguf_bitnet::read_stream(std::io::stdin().lock(), "standard input", most)?,
        false => gguf_bitnet::read_text(path, most)?,
    })
}
