//! Lines of a limited width, as Python's `textwrap` cuts them, in time that grows with the length of the text alone.

use std::ops::Range;

/// The rule by which a line is cut.
#[derive(Clone, Copy)]
pub(super) struct Wrap {
    /// Most characters of a part, at least 1.
    pub(super) columns: usize,
    /// Whether a longer word is cut.
    pub(super) break_long: bool,
    /// Whether a word may be cut behind a hyphen between letters.
    pub(super) hyphens: bool,
}

impl Wrap {
    /// The line in parts of at most `columns` characters, without white space at their ends.
    pub(super) fn parts(self, line: &str) -> impl Iterator<Item = &str> {
        let mut chunks = chunks(line, self.hyphens);
        let next = chunks.next();
        Parts { line, wrap: self, chunks, next, is_first: true }
    }
}

/// A word, or the white space between two: its bytes in the line and the number of its characters.
struct Chunk {
    bytes: Range<usize>,
    chars: usize,
}

struct Parts<'a, I> {
    line: &'a str,
    wrap: Wrap,
    chunks: I,
    /// The next chunk, or what is left of it.
    next: Option<Chunk>,
    is_first: bool,
}

impl<'a, I: Iterator<Item = Chunk>> Iterator for Parts<'a, I> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            // White space at the end goes, even where it is the whole part.
            let part = self.part()?.trim_end();
            if !part.is_empty() {
                self.is_first = false;
                return Some(part);
            }
        }
    }
}

impl<'a, I: Iterator<Item = Chunk>> Parts<'a, I> {
    /// The next part with the white space at its end.
    fn part(&mut self) -> Option<&'a str> {
        let Wrap { columns, break_long, .. } = self.wrap;
        let is_space = |chunk: &mut Chunk| self.line[chunk.bytes.start..].starts_with(char::is_whitespace);
        if !self.is_first && self.next.take_if(is_space).is_some() {
            self.next = self.chunks.next();
        }
        let start = self.next.as_ref()?.bytes.start;
        let (mut end, mut room) = (start, columns);
        while let Some(Chunk { bytes, chars }) = self.next.take() {
            if chars <= room || (chars > columns && !break_long && end == start) {
                (end, room) = (bytes.end, room.saturating_sub(chars));
                self.next = self.chunks.next();
                continue;
            }
            if chars > columns && break_long {
                end += self.line[bytes.clone()].chars().take(room).map(char::len_utf8).sum::<usize>();
                self.next = Some(Chunk { bytes: end..bytes.end, chars: chars - room });
            } else {
                self.next = Some(Chunk { bytes, chars });
            }
            break;
        }
        Some(&self.line[start..end])
    }
}

/// Words and the white space between them; a word is cut after a hyphen between letters.
fn chunks(line: &str, hyphens: bool) -> impl Iterator<Item = Chunk> {
    let is_letter = |c: Option<char>| c.is_some_and(char::is_alphabetic);
    // A character, the three in front of it and the one behind it.
    let mut chars = line.char_indices().peekable();
    let mut before: [Option<char>; 3] = [None; 3];
    let (mut start, mut n) = (0, 0);
    std::iter::from_fn(move || {
        while let Some((at, here)) = chars.next() {
            let [third, second, first] = before;
            before = [second, first, Some(here)];
            let behind = chars.peek().map(|&(_, c)| c);
            let is_hyphen =
                hyphens && first == Some('-') && [third, second, Some(here), behind].into_iter().all(is_letter);
            let is_edge = first.is_some_and(|first| first.is_whitespace() != here.is_whitespace());
            if is_hyphen || is_edge {
                let chunk = Chunk { bytes: start..at, chars: n };
                (start, n) = (at, 1);
                return Some(chunk);
            }
            n += 1;
        }
        let chunk = Chunk { bytes: start..line.len(), chars: std::mem::take(&mut n) };
        (chunk.chars > 0).then_some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::Wrap;

    /// Right-hand sides by Python's `textwrap.wrap`.
    #[test]
    fn lines_are_cut_as_python_cuts_them() {
        for (line, columns, long, want) in [
            ("the quick brown fox", 10, true, &["the quick", "brown fox"][..]),
            ("abcdefgh", 3, true, &["abc", "def", "gh"]),
            ("abcdefgh x", 3, false, &["abcdefgh", "x"]),
            ("a well-known fact", 7, true, &["a well-", "known", "fact"]),
            ("", 5, true, &[]),
            ("   ", 2, true, &[]),
            (" ab  cd ", 4, true, &[" ab", "cd"]),
            ("ab abcdefg h", 4, true, &["ab a", "bcde", "fg h"]),
            ("ab abcdefg h", 4, false, &["ab", "abcdefg", "h"]),
            ("a-b semi-final", 6, true, &["a-b", "semi-", "final"]),
        ] {
            let wrap = Wrap { columns, break_long: long, hyphens: true };
            assert!(wrap.parts(line).eq(want.iter().copied()), "{line}");
        }
    }

    /// A search for the next place that began anew for each part would take hours.
    #[test]
    fn a_word_of_a_million_characters_is_cut_in_one_pass() {
        let word = "x".repeat(1 << 20);
        let wrap = Wrap { columns: 1, break_long: true, hyphens: true };
        assert_eq!(wrap.parts(&word).count(), 1 << 20);
    }
}
