//! The two streams: results on standard output, everything else on standard error.

use std::io::{ErrorKind, Write};

use serde::Serialize;

/// Writes a line of result.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").map_err(not_written)
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
    line(serde_json::to_string_pretty(value)?)
}

/// Writes a line for the person who watches; a closed standard error is nobody watching.
pub(crate) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The one sentence that says why the command failed. Errors of ours name their cause themselves.
pub(crate) fn complain(error: &anyhow::Error) {
    note(format_args!("error: {error}"));
}
