//! Texts: a file, standard input, or an argument.
//!
//! **Invariant:** a text from a file or from standard input is UTF-8 or marked UTF-16 there, and arrives here without a byte
//! order mark and with `\n` at the ends of its lines: the same text gives the same tokens from every system.

use std::borrow::Cow;
use std::path::Path;

use anyhow::Result;
use gguf_bitnet::{with_line_feeds, without_mark};
use rlm_refine::ptq::NamedText;

/// Most bytes of a text: a prompt, or the text of a measurement.
const MAX_TEXT_BYTES: u64 = 256 << 20;

/// Reads a text file, or standard input when the name is `-`.
///
/// # Errors
/// A file that is no regular file or too large, and bytes that are neither UTF-8 nor marked UTF-16.
pub(crate) fn read_text(path: &str) -> Result<String> {
    read_at_most(Path::new(path), MAX_TEXT_BYTES)
}

/// Reads the texts that a model is calibrated or trained on, each as [`read_text`].
///
/// # Errors
/// As [`read_text`].
pub(crate) fn read_texts(names: &[String]) -> Result<Vec<NamedText>> {
    names.iter().map(|name| Ok(NamedText { name: name.clone(), text: read_text(name)? })).collect()
}

/// Reads the text of a message: as [`read_text`], without the end of its last line.
///
/// # Errors
/// As [`read_text`].
pub(crate) fn read_message(path: &str) -> Result<String> {
    let mut text = read_text(path)?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// The text of a message that stands on the command line.
pub(crate) fn message(argument: &str) -> String {
    with_line_feeds(without_mark(argument)).into_owned()
}

/// As [`read_text`], of at most `most` bytes.
///
/// # Errors
/// As [`read_text`].
pub(crate) fn read_at_most(path: &Path, most: u64) -> Result<String> {
    let text = match path == Path::new("-") {
        true => gguf_bitnet::read_stream(std::io::stdin().lock(), "standard input", most)?,
        false => gguf_bitnet::read_text(path, most)?,
    };
    Ok(match with_line_feeds(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(text) => text,
    })
}
