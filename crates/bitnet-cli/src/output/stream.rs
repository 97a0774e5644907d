//! Lines on standard output and standard error.
//!
//! **Invariant:** names and texts from files are escaped, so that no control character in them reaches the terminal.

use std::io::{ErrorKind, Write};

use serde::Serialize;

/// Writes lines of a result; control characters other than line breaks and tabs are escaped.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    raw(lines(&text.to_string()))
}

/// Writes a result for programs unescaped, with a line break after it.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn raw(text: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").map_err(not_written)
}

/// Writes the bytes of a file to standard output.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(not_written)
}

/// Escapes a name from a file, line breaks included.
pub(crate) fn name(text: &str) -> String {
    escape(text, |_| false)
}

/// Escapes a text of several lines, whose line breaks and tabs stay.
pub(crate) fn lines(text: &str) -> String {
    escape(text, |c| matches!(c, '\n' | '\t'))
}

fn escape(text: &str, stays: fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if gguf_bitnet::is_unseen(c) && !stays(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// The error of a failed write to standard output. A closed pipe keeps its kind, because it is no failure of the command.
pub(crate) fn not_written(error: std::io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::BrokenPipe => error.into(),
        _ => anyhow::anyhow!("cannot write to standard output: {error}"),
    }
}

/// Writes a result as indented JSON.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    raw(serde_json::to_string_pretty(value)?)
}

/// Writes a line to standard error. A closed standard error is no failure of the command.
pub(crate) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{}", lines(&text.to_string()));
}

#[cfg(test)]
mod tests {
    use super::{lines, name};

    #[test]
    fn no_text_gives_orders_to_a_terminal() {
        assert_eq!(lines("größe\t1\n\u{1b}[31m\r\u{9b}2J\u{202e}"), "größe\t1\n\\u{1b}[31m\\u{d}\\u{9b}2J\\u{202e}");
        assert_eq!(name("p-1\nSHIP\t\u{7}"), "p-1\\u{a}SHIP\\u{9}\\u{7}");
    }
}
