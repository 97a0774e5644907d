//! The two streams: results on standard output, everything else on standard error.
//!
//! **Invariant:** whatever a file calls its prompts, keys and tensors, no line here is an order to the terminal.

use std::io::{ErrorKind, Write};

use serde::Serialize;

/// The work is done and its result is that something did not pass; what, has been printed.
#[derive(Debug)]
pub(crate) struct GateFailed;

impl std::fmt::Display for GateFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a gate failed")
    }
}

impl std::error::Error for GateFailed {}

/// A command line whose parts do not fit together, in one sentence.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Writes lines of result.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    raw(lines(&text.to_string()))
}

/// Writes a result for programs as it is, with a line break after it.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn raw(text: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").map_err(not_written)
}

/// A name out of a file, which stays on its line.
pub(crate) fn name(text: &str) -> String {
    escape(text, |_| false)
}

/// Text whose line breaks and tabs are ours.
fn lines(text: &str) -> String {
    escape(text, |c| matches!(c, '\n' | '\t'))
}

fn escape(text: &str, is_ours: fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if gguf_bitnet::is_unseen(c) && !is_ours(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// Why standard output took no more. A reader who left stays recognisable: that is no failure.
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

/// Writes a line for the person who watches; a closed standard error is nobody watching.
pub(crate) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{}", lines(&text.to_string()));
}

/// The one sentence that says why the command failed. Errors of ours name their cause themselves.
pub(crate) fn complain(error: &anyhow::Error) {
    note(format_args!("error: {error}"));
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
