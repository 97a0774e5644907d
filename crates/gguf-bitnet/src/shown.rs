//! Text from a file, escaped and shortened for a message.
//!
//! **Invariant:** a message that quotes a name from a file stays one line of readable length and sends the terminal no
//! control sequences, for any name.

use std::fmt::{self, Write};

/// Number of characters of a text that are shown.
const CHARS: usize = 200;

/// Whether a character is not printed but acts on the terminal: it ends a line, moves the cursor, or turns the writing
/// direction of the following text.
#[must_use]
pub fn is_unseen(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Shows a text with its control characters escaped and its tail cut off.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, c) in self.0.chars().enumerate() {
            if n == CHARS {
                return write!(f, "... ({} bytes)", self.0.len());
            }
            if is_unseen(c) { write!(f, "{}", c.escape_unicode())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

/// The first of some names, each [`Shown`].
pub(crate) fn listed<T: AsRef<str>>(names: &[T]) -> String {
    let mut first: Vec<String> = names.iter().take(4).map(|name| Shown(name.as_ref()).to_string()).collect();
    if names.len() > first.len() {
        first.push("...".to_owned());
    }
    first.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_they_are_and_hostile_ones_in_one_short_line() {
        assert_eq!(Shown("blk.0.größe \"x\"").to_string(), "blk.0.größe \"x\"");
        assert_eq!(Shown("a\n\u{1b}[31m\u{202e}").to_string(), "a\\u{a}\\u{1b}[31m\\u{202e}");
        let long = Shown(&"é".repeat(1_000_000)).to_string();
        assert!(long.chars().count() < 230 && long.ends_with("... (2000000 bytes)"), "{long}");
        assert_eq!(listed(&["a.gguf", "b\u{1b}[2J.gguf"]), "a.gguf, b\\u{1b}[2J.gguf");
        assert_eq!(listed(&["1", "2", "3", "4", "5"]), "1, 2, 3, 4, ...");
    }
}
