//! What every command returns, and the error that carries the exit code of another program.

/// The error's text is for the person at the terminal.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Ends this program with the exit code of one that it ran, or with one that means the same.
#[derive(Debug)]
pub(crate) struct EndedWith(pub(crate) u8);

impl std::fmt::Display for EndedWith {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ended with exit code {}", self.0)
    }
}

impl std::error::Error for EndedWith {}
