//! Texts: a file, or standard input.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use anyhow::{Result, anyhow};

/// Reads a text file, or standard input when the name is `-`.
pub(crate) fn read_text(path: &str) -> Result<String> {
    let (name, text) = match path {
        "-" => ("standard input", std::io::read_to_string(std::io::stdin())),
        path => (path, std::fs::read_to_string(path)),
    };
    text.map_err(|error| match error.kind() {
        ErrorKind::InvalidData => anyhow!("{name} is not UTF-8 text: convert it first"),
        _ => anyhow!("cannot read {name}: {error}"),
    })
}

/// Reads a text file of at most `most` bytes.
///
/// # Errors
/// A larger file, one that cannot be read, and one that is not UTF-8.
pub(crate) fn read_at_most(path: &Path, most: u64) -> Result<String> {
    let mut text = String::new();
    // The limit holds while reading: a device or a pipe has no length to ask for beforehand.
    let read = File::open(path).and_then(|file| file.take(most.saturating_add(1)).read_to_string(&mut text));
    if text.len() as u64 > most {
        return Err(anyhow!("{} has more than {most} bytes, and far less are enough", path.display()));
    }
    read.map_err(|error| anyhow!("cannot read {}: {error}", path.display()))?;
    Ok(text)
}
