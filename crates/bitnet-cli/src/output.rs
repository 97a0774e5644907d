//! The two streams: results on standard output, everything else on standard error.

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
