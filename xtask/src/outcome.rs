//! The result of every command, and the error that carries the exit code of another program.

/// The result of a command. The text of its error is printed on the terminal.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// An exit code for this program: that of a program it ran, or one with the same meaning.
#[derive(Debug)]
pub(crate) struct EndedWith(pub(crate) u8);

impl std::fmt::Display for EndedWith {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ended with exit code {}", self.0)
    }
}

impl std::error::Error for EndedWith {}
