//! How the command ends: the exit code of every outcome.
//!
//! | code | outcome |
//! |---|---|
//! | 0 | done, also when the reader of standard output left early, as `head` does |
//! | 1 | could not be done; one sentence on standard error says why |
//! | 2 | wrong command line; the sentence names the option and the remedy |
//! | 3 | done, and a gate failed |
//! | 130 | interrupted: the shell's number for a process that SIGINT ended |
//!
//! **Invariant:** a value or a combination of options that is refused without looking at the content of a file ends with
//! 2. The value parsers in `args` and clap's own rules refuse most of them; a [`UsageError`] refuses the rest. Also 2:
//! `--out` that names the source, and `--stamp` for a student that is no single GGUF file.

use std::fmt;
use std::io::ErrorKind;
use std::process::ExitCode;

use crate::output;

/// Most characters of a sentence on standard error.
const MAX_CHARS: usize = 2000;

/// The exit code of a program that was interrupted.
pub(crate) const INTERRUPTED: u8 = 130;

/// A command line whose parts do not fit together, as a sentence that names the option and the remedy.
#[derive(Debug)]
pub(crate) struct UsageError(String);

impl UsageError {
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// The work is done, and its result is that a gate failed; the verb has printed which one.
#[derive(Debug)]
pub(crate) struct GateFailed;

impl fmt::Display for GateFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a gate failed")
    }
}

impl std::error::Error for GateFailed {}

/// The user ended the program with Ctrl-C.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Prints the reason of a failure and returns its exit code.
pub(crate) fn code(outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    if is_closed_pipe(&error) {
        return ExitCode::SUCCESS;
    }
    if error.is::<GateFailed>() {
        return ExitCode::from(3);
    }
    if error.is::<Interrupted>() {
        return ExitCode::from(INTERRUPTED);
    }
    // Errors of the libraries name their cause themselves, so that one line is enough.
    output::note(format_args!("error: {}", shortened(&error.to_string())));
    ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
}

/// Prints clap's message about a command line, with the options in it that the user did not type, or the help that was asked
/// for, and returns its exit code.
pub(crate) fn wrong_command_line(error: &clap::Error, added: &[String]) -> ExitCode {
    if error.print().is_ok() && error.use_stderr() {
        added.iter().for_each(|origin| output::note(format_args!("note: {origin}")));
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// A sentence of readable length: one that quotes a long piece of a damaged file loses its middle.
fn shortened(sentence: &str) -> String {
    let n = sentence.chars().count();
    if n <= MAX_CHARS {
        return sentence.to_owned();
    }
    let start: String = sentence.chars().take(MAX_CHARS * 3 / 4).collect();
    let end: String = sentence.chars().skip(n - MAX_CHARS / 4).collect();
    format!("{start} ... {end}")
}

/// Whether the reader of standard output closed it.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn a_sentence_keeps_its_ends() {
        assert_eq!(shortened("short: größe"), "short: größe");
        let long = shortened(&format!("m.json: token `{}` is unknown: fetch it again", "é".repeat(70_000)));
        assert!(long.chars().count() < 2100 && long.starts_with("m.json: token") && long.ends_with("fetch it again"));
    }
}
