//! The text that is edited, and its cursor.
//!
//! **Invariant:** the cursor stands between two graphemes (characters as a person sees them), and the text has at most
//! [`MOST_BYTES`].

use unicode_segmentation::UnicodeSegmentation;

/// Most bytes of a message: far more than fit any context.
pub(super) const MOST_BYTES: usize = 16 << 20;

/// A text of one or more lines with a cursor.
#[derive(Debug, Default)]
pub(super) struct Line {
    text: String,
    /// Byte of `text` that the cursor stands before.
    cursor: usize,
}

impl Line {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Byte of the text that the cursor stands before.
    pub(super) fn cursor(&self) -> usize {
        self.cursor
    }

    /// Replaces the text; the cursor stands behind it.
    pub(super) fn set(&mut self, text: String) {
        self.cursor = text.len();
        self.text = text;
    }

    /// Empties the line and returns its text.
    pub(super) fn take(&mut self) -> String {
        self.cursor = 0;
        std::mem::take(&mut self.text)
    }

    /// Inserts at the cursor as much of `text` as there is room for; whether that was all.
    pub(super) fn insert(&mut self, text: &str) -> bool {
        let room = text.floor_char_boundary(MOST_BYTES.saturating_sub(self.text.len()));
        self.text.insert_str(self.cursor, &text[..room]);
        self.cursor += room;
        room == text.len()
    }

    pub(super) fn left(&mut self) {
        self.cursor -= self.text[..self.cursor].graphemes(true).next_back().map_or(0, str::len);
    }

    pub(super) fn right(&mut self) {
        self.cursor += self.text[self.cursor..].graphemes(true).next().map_or(0, str::len);
    }

    /// To the start of the word, or of the one before.
    pub(super) fn word_left(&mut self) {
        let before = &self.text[..self.cursor];
        let start = before.unicode_word_indices().next_back().map_or(0, |(start, _)| start);
        // Some letters, as those of Thai, are words of their own and yet a grapheme with the next one.
        self.cursor = before.grapheme_indices(true).map(|(at, _)| at).rfind(|&at| at <= start).unwrap_or(0);
    }

    /// Behind the word, or behind the one that follows.
    pub(super) fn word_right(&mut self) {
        let after = &self.text[self.cursor..];
        let end = after.unicode_word_indices().next().map_or(after.len(), |(start, word)| start + word.len());
        let mut ends = after.grapheme_indices(true).map(|(at, grapheme)| at + grapheme.len());
        self.cursor += ends.find(|&at| at >= end).unwrap_or(0);
    }

    /// To the start of the line of the text.
    pub(super) fn home(&mut self) {
        self.cursor = self.start_of_line();
    }

    /// To the end of the line of the text.
    pub(super) fn end(&mut self) {
        self.cursor = self.end_of_line();
    }

    /// To the line above at the same distance from its start; `false` on the first line.
    pub(super) fn up(&mut self) -> bool {
        let start = self.start_of_line();
        if start == 0 {
            return false;
        }
        let graphemes = self.text[start..self.cursor].graphemes(true).count();
        self.cursor = start - 1;
        self.home();
        self.move_along_line(graphemes);
        true
    }

    /// To the line below at the same distance from its start; `false` on the last line.
    pub(super) fn down(&mut self) -> bool {
        let end = self.end_of_line();
        if end == self.text.len() {
            return false;
        }
        let graphemes = self.text[self.start_of_line()..self.cursor].graphemes(true).count();
        self.cursor = end + 1;
        self.move_along_line(graphemes);
        true
    }

    /// Deletes from the cursor to where `movement` takes it.
    pub(super) fn delete(&mut self, movement: impl FnOnce(&mut Line)) {
        let from = self.cursor;
        movement(self);
        let (start, end) = (from.min(self.cursor), from.max(self.cursor));
        self.text.replace_range(start..end, "");
        self.cursor = start;
    }

    fn start_of_line(&self) -> usize {
        self.text[..self.cursor].rfind('\n').map_or(0, |at| at + 1)
    }

    fn end_of_line(&self) -> usize {
        self.text[self.cursor..].find('\n').map_or(self.text.len(), |at| self.cursor + at)
    }

    fn move_along_line(&mut self, graphemes: usize) {
        let line = &self.text[self.cursor..self.end_of_line()];
        self.cursor += line.graphemes(true).take(graphemes).map(str::len).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, MOST_BYTES};

    fn line(text: &str) -> Line {
        let mut line = Line::default();
        line.set(text.to_owned());
        line
    }

    #[test]
    fn the_cursor_steps_over_whole_characters_and_words() {
        let mut line = line("a e\u{301} \u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f466}!");
        line.left();
        line.left();
        assert_eq!(
            &line.text()[line.cursor()..],
            "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f466}!",
            "a family is one step"
        );
        line.delete(Line::right);
        assert_eq!(line.text(), "a e\u{301} !");
        line.home();
        line.word_right();
        line.right();
        line.delete(Line::right);
        assert_eq!(line.text(), "a  !");
        line.end();
        line.delete(Line::word_left);
        assert_eq!((line.text(), line.cursor()), ("", 0));
        line.left();
        line.delete(Line::left);
        line.delete(Line::right);
        assert_eq!(line.cursor(), 0);
    }

    #[test]
    fn words_are_those_of_every_script() {
        let text = "don't, e\u{301}te\u{301} 3.14 \u{4f60}\u{597d} \u{e19}\u{e49}\u{e33}!";
        let mut line = line(text);
        line.home();
        let mut stops = Vec::new();
        while line.cursor() < text.len() {
            line.word_right();
            stops.push(&text[..line.cursor()]);
        }
        let ends = ["don't", "e\u{301}te\u{301}", "3.14", "\u{4f60}", "\u{597d}", "\u{e19}\u{e49}\u{e33}", "!"];
        assert!(
            stops.len() == ends.len() && stops.iter().zip(ends).all(|(stop, end)| stop.ends_with(end)),
            "{stops:?}"
        );
        let mut stops = Vec::new();
        while line.cursor() > 0 {
            line.word_left();
            stops.push(&text[line.cursor()..]);
        }
        let starts = ["\u{e19}\u{e49}\u{e33}", "\u{597d}", "\u{4f60}", "3.14", "e\u{301}te\u{301}", "don't"];
        let starts_so = stops.iter().zip(starts).all(|(stop, start)| stop.starts_with(start));
        assert!(stops.len() == starts.len() && starts_so, "{stops:?}");
    }

    #[test]
    fn up_and_down_keep_the_column_and_tell_where_the_text_ends() {
        let mut line = line("long line\nb\n\nlast one");
        for want in ["\nlast one", "b\n\nlast one", "long line\nb\n\nlast one"] {
            assert!(line.up());
            assert_eq!(&line.text()[line.cursor()..], want, "an empty line has one column");
        }
        assert!(!line.up());
        while line.down() {}
        assert!(line.cursor() >= "long line\nb\n\n".len());
    }

    #[test]
    fn a_line_has_an_end() {
        let mut line = line("");
        assert!(line.insert(&"\u{e9}".repeat(MOST_BYTES / 2 - 1)));
        assert!(!line.insert("x\u{e9}\u{e9}") && line.text().len() == MOST_BYTES - 1);
        assert!(line.text().ends_with('x'));
    }
}
