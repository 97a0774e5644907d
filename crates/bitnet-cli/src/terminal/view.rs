//! A text with its prompt as rows of the terminal.
//!
//! ```text
//! > the first row has the prompt, and a text that is too long for its row goes
//! on in the next one
//! ```
//!
//! Rows leave the last column free, because terminals differ in what they do with a cursor behind it. A text that is higher
//! than the window is shown around the cursor.
//!
//! **Invariant:** control characters of the text are shown as pictures and never sent.

use std::fmt::Write;
use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// Columns of a tab.
const TAB: &str = "    ";

/// Columns and rows of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// The rows that stand on the terminal since the last drawing.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Columns of each drawn row down to the cursor's, the cursor's row up to the cursor.
    above: Vec<usize>,
}

/// A row of the terminal: a part of the text.
#[derive(Debug)]
struct Row {
    text: Range<usize>,
    columns: usize,
}

impl View {
    /// The orders that replace the last drawing by `prompt` and `text`, with the cursor before byte `cursor` of the text.
    pub(super) fn draw(&mut self, prompt: &str, text: &str, cursor: usize, size: Size) -> String {
        let width = size.columns.saturating_sub(1).max(1);
        let mut out = self.erase(size);
        let (rows, at) = layout(text, cursor, prompt.width(), width);
        let height = size.rows.saturating_sub(1).max(1);
        let first = if rows.len() <= height { 0 } else { at.0.saturating_sub(height / 2).min(rows.len() - height) };
        let last = rows.len().min(first + height) - 1;
        for (n, row) in rows[first..=last].iter().enumerate() {
            if n > 0 {
                out.push_str("\r\n");
            }
            if first + n == 0 {
                out.push_str(prompt);
            }
            text[row.text.clone()].graphemes(true).for_each(|grapheme| out.push_str(&shown(grapheme)));
        }
        let up = last - at.0;
        if up > 0 {
            let _ = write!(out, "\x1b[{up}A");
        }
        out.push('\r');
        if at.1 > 0 {
            let _ = write!(out, "\x1b[{}C", at.1);
        }
        self.above = rows[first..at.0].iter().map(|row| row.columns).chain([at.1]).collect();
        out
    }

    /// Others have written below the last drawing, which stays: the next one replaces the row of the cursor alone.
    pub(super) fn leave_drawing(&mut self) {
        self.above = vec![0];
    }

    /// The orders that remove the last drawing; the cursor is then where the drawing began.
    fn erase(&mut self, size: Size) -> String {
        // A window that became narrower has broken longer rows into several.
        let columns = size.columns.max(1);
        let rows: usize = self.above.iter().map(|row| 1 + row.saturating_sub(1) / columns).sum();
        let up = rows.saturating_sub(1);
        let is_drawn = !self.above.is_empty();
        self.above.clear();
        match (is_drawn, up) {
            (false, _) => String::new(),
            (true, 0) => "\r\x1b[J".to_owned(),
            (true, up) => format!("\x1b[{up}A\r\x1b[J"),
        }
    }
}

/// The rows of a text behind a prompt of `indent` columns, and row and column of the cursor.
fn layout(text: &str, cursor: usize, indent: usize, width: usize) -> (Vec<Row>, (usize, usize)) {
    let (mut rows, mut start, mut columns) = (Vec::new(), 0, indent);
    let mut at = None;
    for (byte, grapheme) in text.grapheme_indices(true) {
        let is_end = grapheme == "\n";
        let wide = if is_end { 0 } else { shown(grapheme).width() };
        if columns + wide > width && columns > 0 {
            rows.push(Row { text: start..byte, columns });
            (start, columns) = (byte, 0);
        }
        if at.is_none() && byte >= cursor {
            at = Some((rows.len(), columns));
        }
        columns += wide;
        if is_end {
            rows.push(Row { text: start..byte, columns });
            (start, columns) = (byte + 1, 0);
        }
    }
    let at = at.unwrap_or((rows.len(), columns));
    rows.push(Row { text: start..text.len(), columns });
    (rows, at)
}

/// A character as it is shown.
fn shown(grapheme: &str) -> std::borrow::Cow<'_, str> {
    match grapheme {
        "\t" => TAB.into(),
        _ if grapheme.chars().any(gguf_bitnet::is_unseen) => grapheme.chars().map(picture).collect::<String>().into(),
        _ => grapheme.into(),
    }
}

/// The picture of a control character, or the character itself.
fn picture(c: char) -> char {
    match c {
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
        '\x7f' => '\u{2421}',
        c if gguf_bitnet::is_unseen(c) => '\u{fffd}',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::{Size, View};

    const WIDE: Size = Size { columns: 80, rows: 24 };

    #[test]
    fn a_text_is_drawn_behind_its_prompt_and_replaced_by_the_next() {
        let mut view = View::default();
        assert_eq!(view.draw("> ", "", 0, WIDE), "> \r\x1b[2C");
        assert_eq!(view.draw("> ", "hi", 2, WIDE), "\r\x1b[J> hi\r\x1b[4C");
        assert_eq!(view.draw("> ", "a\nb", 0, WIDE), "\r\x1b[J> a\r\nb\x1b[1A\r\x1b[2C");
        assert_eq!(view.draw("> ", "a\nb", 3, WIDE), "\r\x1b[J> a\r\nb\r\x1b[1C");
        assert_eq!(view.erase(WIDE), "\x1b[1A\r\x1b[J");
        assert_eq!(view.erase(WIDE), "");
        view.draw("> ", "a\nb", 3, WIDE);
        view.leave_drawing();
        assert_eq!(view.draw("> ", "a\nb", 3, WIDE), "\r\x1b[J> a\r\nb\r\x1b[1C", "no row above is erased");
    }

    #[test]
    fn rows_of_a_narrow_window_are_full_but_for_one_column() {
        let narrow = Size { columns: 6, rows: 24 };
        assert_eq!(View::default().draw("> ", "abcdef", 6, narrow), "> abc\r\ndef\r\x1b[3C");
        assert_eq!(View::default().draw("> ", "ab\u{4f60}\u{597d}", 8, narrow), "> ab\r\n\u{4f60}\u{597d}\r\x1b[4C");
        let tiny = Size { columns: 0, rows: 0 };
        assert!(View::default().draw("> ", "\u{4f60}b\u{1b}", 0, tiny).len() < 80, "no panic, no endless row");
    }

    #[test]
    fn what_a_narrower_window_has_broken_is_erased_too() {
        let mut view = View::default();
        view.draw("> ", &"x".repeat(60), 60, WIDE);
        assert_eq!(view.erase(Size { columns: 20, rows: 24 }), "\x1b[3A\r\x1b[J");
    }

    #[test]
    fn control_characters_are_pictures() {
        let text = "a\u{1b}[31m\u{7}\u{0}\u{7f}\u{9b}2J\u{202e}\tb";
        let drawn = View::default().draw("", text, 0, WIDE);
        assert_eq!(drawn, "a\u{241b}[31m\u{2407}\u{2400}\u{2421}\u{fffd}2J\u{fffd}    b\r");
    }

    #[test]
    fn a_text_that_is_higher_than_the_window_is_shown_around_the_cursor() {
        let text: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
        let small = Size { columns: 40, rows: 5 };
        let end = View::default().draw("> ", &text, text.len(), small);
        assert!(end.contains("line 9999") && !end.contains("line 9990") && end.len() < 100, "{end}");
        let start = View::default().draw("> ", &text, 0, small);
        assert!(start.starts_with("> line 0\r\nline 1") && start.len() < 100, "{start}");
    }
}
