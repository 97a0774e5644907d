//! From the bytes of a terminal to keys.
//!
//! A terminal with bracketed paste puts marks around a pasted text: `ESC [ 200 ~` and `ESC [ 201 ~`. A terminal without them
//! sends the text as if it were typed, but at once. So bytes are decoded in *bursts*, which end when the terminal is silent
//! for a moment: an end of a line with more text behind it in the same burst is part of the message, and only the last one
//! sends it.
//!
//! **Invariant:** between the marks, and in a burst of several lines, every byte is text. Bytes that are no UTF-8 become
//! U+FFFD. Nothing a terminal sends is an error.

/// Longest escape sequence of a key; a longer one is dropped up to here.
const LONGEST_SEQUENCE: usize = 32;
const ESCAPE: u8 = 0x1b;
const PASTE_START: &[u8] = b"\x1b[200~";
const PASTE_END: &[u8] = b"\x1b[201~";

/// Control characters that stop, end or suspend: Ctrl-C, Ctrl-D, Ctrl-Z.
pub(super) const INTERRUPT: u8 = 3;
pub(super) const END: u8 = 4;
pub(super) const SUSPEND: u8 = 26;

/// A key, or a text that arrived at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Text, in which `\n` ends lines. A pasted text may hold control characters.
    Text(String),
    /// The end of a line that sends the message.
    Enter,
    /// A control character other than an end of a line, a tab and escape; Backspace is 0x7f.
    Control(u8),
    /// Alt and a character.
    Alt(char),
    Left,
    Right,
    Up,
    Down,
    Home,
    End,
    Delete,
    WordLeft,
    WordRight,
}

/// A key, or another change that an editor reacts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Key(Key),
    /// The window has another size.
    Redraw,
    /// The program was stopped and goes on: the shell has written below the drawing.
    Resumed,
    /// More input came at once than is kept.
    Lost,
    /// There will be no more input.
    Closed,
}

impl Key {
    /// Bytes of memory that the key takes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Key>() + if let Key::Text(text) = self { text.len() } else { 0 }
    }
}

impl Event {
    /// Bytes of memory of its key.
    pub(super) fn bytes(&self) -> usize {
        if let Event::Key(key) = self { key.bytes() } else { 0 }
    }
}

/// Decodes bytes that arrive in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The start of a sequence or of a character, whose end has not arrived.
    rest: Vec<u8>,
    /// Between the marks of a paste.
    in_paste: bool,
    /// The last byte was a carriage return: a line feed behind it belongs to it.
    after_return: bool,
    /// An interrupt was pressed since the last call of [`Decoder::was_interrupted`].
    interrupted: bool,
}

impl Decoder {
    /// Decodes `bytes` behind those before; the keys are appended to `burst`.
    pub(super) fn push(&mut self, bytes: &[u8], burst: &mut Burst) {
        self.rest.extend_from_slice(bytes);
        let all = std::mem::take(&mut self.rest);
        let mut at = 0;
        while at < all.len() {
            match self.next(&all[at..], burst) {
                Some(used) => at += used,
                None => break,
            }
        }
        self.rest.extend_from_slice(&all[at..]);
    }

    /// Whether the end of an escape sequence is still to come.
    pub(super) fn is_in_sequence(&self) -> bool {
        self.rest.first() == Some(&ESCAPE)
    }

    /// Whether the end of a paste is still to come.
    pub(super) fn is_in_paste(&self) -> bool {
        self.in_paste
    }

    /// The terminal was silent: a sequence without an end was a key of its own, such as Escape, and means nothing. A paste
    /// without an end is over. The start of a character stays: a slow line may pause within one.
    pub(super) fn give_up(&mut self) {
        if self.is_in_sequence() {
            self.rest.clear();
        }
        self.in_paste = false;
    }

    /// Whether Ctrl-C was pressed since the last call, outside the marks of a paste.
    pub(super) fn was_interrupted(&mut self) -> bool {
        std::mem::take(&mut self.interrupted)
    }

    /// Decodes the front of `bytes`, which is not empty; `None` when its end has not arrived.
    fn next(&mut self, bytes: &[u8], burst: &mut Burst) -> Option<usize> {
        let after_return = std::mem::take(&mut self.after_return);
        match bytes[0] {
            b'\n' if after_return => Some(1),
            byte @ (b'\r' | b'\n') => {
                self.after_return = byte == b'\r';
                if self.in_paste {
                    burst.text("\n")
                } else {
                    burst.end_of_line()
                }
                Some(1)
            }
            ESCAPE => self.escape(bytes, burst),
            byte if (byte < b' ' && byte != b'\t') || byte == 0x7f => {
                if self.in_paste {
                    burst.text(char::from(byte).encode_utf8(&mut [0; 4]));
                } else {
                    self.interrupted |= byte == INTERRUPT;
                    burst.key(Key::Control(byte));
                }
                Some(1)
            }
            _ => text(bytes, burst),
        }
    }

    fn escape(&mut self, bytes: &[u8], burst: &mut Burst) -> Option<usize> {
        if self.in_paste {
            if bytes.starts_with(PASTE_END) {
                self.in_paste = false;
                return Some(PASTE_END.len());
            }
            if PASTE_END.starts_with(bytes) {
                return None;
            }
            burst.text("\u{1b}");
            return Some(1);
        }
        let used = match bytes.get(1)? {
            b'[' => 2 + sequence(&bytes[2..])?,
            b'O' => 2 + bytes.get(2).map(|_| 1)?,
            // Two escapes: the second begins the next key.
            &ESCAPE => 1,
            byte if byte.is_ascii() => 2,
            _ => 1,
        };
        let sequence = &bytes[..used];
        if sequence == PASTE_START {
            self.in_paste = true;
        } else if let Some(key) = key(sequence) {
            burst.key(key);
        }
        Some(used)
    }
}

/// Length of a control sequence behind its `ESC [`: parameters up to a final byte. Bytes that belong to no sequence end it.
fn sequence(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|byte| !(b' '..=b'?').contains(byte));
    match end {
        Some(end) if (b'@'..=b'~').contains(&bytes[end]) => Some(end + 1),
        Some(end) => Some(end),
        None if bytes.len() >= LONGEST_SEQUENCE => Some(bytes.len()),
        None => None,
    }
}

/// The key of a sequence; `None` for one without a meaning here.
fn key(sequence: &[u8]) -> Option<Key> {
    Some(match &sequence[1..] {
        b"[A" | b"OA" => Key::Up,
        b"[B" | b"OB" => Key::Down,
        b"[C" | b"OC" => Key::Right,
        b"[D" | b"OD" => Key::Left,
        b"[H" | b"OH" | b"[1~" | b"[7~" => Key::Home,
        b"[F" | b"OF" | b"[4~" | b"[8~" => Key::End,
        b"[3~" => Key::Delete,
        b"[1;5C" | b"[1;3C" => Key::WordRight,
        b"[1;5D" | b"[1;3D" => Key::WordLeft,
        [byte] => Key::Alt(char::from(*byte)),
        _ => return None,
    })
}

/// Takes the longest front of `bytes` that is text, with U+FFFD for bytes that are none; `None` when the first character is
/// incomplete.
fn text(bytes: &[u8], burst: &mut Burst) -> Option<usize> {
    let end = bytes.iter().position(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7f).unwrap_or(bytes.len());
    let mut used = 0;
    for chunk in bytes[..end].utf8_chunks() {
        burst.text(chunk.valid());
        used += chunk.valid().len();
        let invalid = chunk.invalid();
        let is_incomplete = used + invalid.len() == bytes.len()
            && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
        if is_incomplete {
            break;
        }
        if !invalid.is_empty() {
            burst.text("\u{fffd}");
            used += invalid.len();
        }
    }
    (used > 0).then_some(used)
}

/// The keys that arrived without a pause between them.
#[derive(Debug, Default)]
pub(super) struct Burst {
    keys: Vec<Key>,
    bytes: usize,
    /// Ends of lines that have text or another end behind them.
    has_lines: bool,
}

impl Burst {
    fn text(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.has_lines |= matches!(self.keys.last(), Some(Key::Enter));
        self.bytes += text.len();
        match self.keys.last_mut() {
            Some(Key::Text(before)) => before.push_str(text),
            _ => self.keys.push(Key::Text(text.to_owned())),
        }
    }

    fn end_of_line(&mut self) {
        self.has_lines |= matches!(self.keys.last(), Some(Key::Enter));
        self.key(Key::Enter);
    }

    fn key(&mut self, key: Key) {
        self.bytes += size_of::<Key>();
        self.keys.push(key);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Bytes of all keys.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether an end of a line has more behind it: such a burst was pasted.
    pub(super) fn has_lines(&self) -> bool {
        self.has_lines
    }

    /// Whether more of the burst would turn its last key, an end of a line, into text.
    pub(super) fn ends_in_enter(&self) -> bool {
        matches!(self.keys.last(), Some(Key::Enter))
    }

    /// Ends the burst: its keys, with all that was pasted as text.
    pub(super) fn take(&mut self) -> Vec<Key> {
        let Burst { keys, has_lines, .. } = std::mem::take(self);
        let last_text = keys.iter().rposition(|key| matches!(key, Key::Text(_) | Key::Enter)).unwrap_or(0);
        let mut out = Burst::default();
        for (at, key) in keys.into_iter().enumerate() {
            let before_text = at < last_text;
            match key {
                Key::Text(text) => out.text(&text),
                Key::Enter if before_text && has_lines => out.text("\n"),
                Key::Control(byte) if before_text && (has_lines || matches!(byte, INTERRUPT | END | SUSPEND)) => {
                    out.text(char::from(byte).encode_utf8(&mut [0; 4]));
                }
                _ if before_text && has_lines => {}
                key => out.key(key),
            }
        }
        out.keys
    }
}

#[cfg(test)]
mod tests {
    use super::{Burst, Decoder, Key};

    /// The keys of pieces that arrive without a pause.
    fn keys(pieces: &[&[u8]]) -> Vec<Key> {
        let (mut decoder, mut burst) = (Decoder::default(), Burst::default());
        pieces.iter().for_each(|piece| decoder.push(piece, &mut burst));
        burst.take()
    }

    fn text(text: &str) -> Key {
        Key::Text(text.to_owned())
    }

    #[test]
    fn a_paste_is_one_text_with_and_without_marks_however_it_is_cut() {
        let pasted = "First, \u{e9}\u{1f600}.\r\r\nSecond\n\tline";
        let want = "First, \u{e9}\u{1f600}.\n\nSecond\n\tline";
        let marked = [b"\x1b[200~", pasted.as_bytes(), b"\r\x1b[201~"].concat();
        let plain = [pasted.as_bytes(), b"\r"].concat();
        for size in 1..plain.len() {
            let pieces: Vec<&[u8]> = marked.chunks(size).collect();
            assert_eq!(keys(&pieces), [text(&format!("{want}\n"))], "pieces of {size}");
            let pieces: Vec<&[u8]> = plain.chunks(size).collect();
            assert_eq!(keys(&pieces), [text(want), Key::Enter], "pieces of {size}");
        }
    }

    #[test]
    fn control_characters_and_sequences_in_a_paste_are_text_or_nothing() {
        let hostile = b"a\x03b\x04\x1a\x15c\x1b]0;x\x07\x1b[2Jd";
        let marked = [b"\x1b[200~", &hostile[..], b"\x1b[201~"].concat();
        assert_eq!(keys(&[&marked]), [Key::Text(String::from_utf8(hostile.to_vec()).unwrap())]);
        let plain = [b"one\r", &hostile[..], b"\r"].concat();
        assert_eq!(keys(&[&plain]), [text("one\na\u{3}b\u{4}\u{1a}\u{15}c0;x\u{7}d"), Key::Enter]);
        // On one line, keys edit it; only those that would stop or end the chat need to be the last.
        assert_eq!(keys(&[b"a\x03b\x7f"]), [text("a\u{3}b"), Key::Control(0x7f)]);
        assert_eq!(keys(&[b"ab\x03"]), [text("ab"), Key::Control(3)]);
        assert_eq!(keys(&[b"\x03\x03\x04"]), [Key::Control(3), Key::Control(3), Key::Control(4)]);
        assert_eq!(keys(&[b"ask\r\x04"]), [text("ask"), Key::Enter, Key::Control(4)]);
    }

    #[test]
    fn an_interrupt_is_heard_outside_of_marks_only() {
        let (mut decoder, mut burst) = (Decoder::default(), Burst::default());
        decoder.push(b"typed \x03 ahead\r", &mut burst);
        assert!(decoder.was_interrupted() && !decoder.was_interrupted());
        decoder.push(b"\x1b[200~\x03\x1b[201~", &mut burst);
        assert!(!decoder.was_interrupted());
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_and_never_end_the_line() {
        assert_eq!(keys(&[b"a\xff\xfe\xc3(\xe2\x82b\r"]), [text("a\u{fffd}\u{fffd}\u{fffd}(\u{fffd}b"), Key::Enter]);
        let (mut decoder, mut burst) = (Decoder::default(), Burst::default());
        decoder.push(b"\x1b", &mut burst);
        assert!(decoder.is_in_sequence());
        decoder.give_up();
        decoder.push(b"A", &mut burst);
        assert_eq!(burst.take(), [text("A")]);
    }

    #[test]
    fn a_character_waits_for_its_end_however_long_the_terminal_is_silent() {
        for start in ["", "\x1b[200~"] {
            let (mut decoder, mut burst) = (Decoder::default(), Burst::default());
            decoder.push(start.as_bytes(), &mut burst);
            decoder.push(b"caf\xc3", &mut burst);
            assert!(!decoder.is_in_sequence());
            decoder.give_up();
            decoder.push(b"\xa9\r", &mut burst);
            assert_eq!(burst.take(), [text("caf\u{e9}"), Key::Enter], "{start:?}");
        }
    }

    #[test]
    fn sequences_are_keys_in_any_pieces() {
        let typed = b"\x1b[A\x1bOB\x1b[1;5C\x1b[1;5D\x1b[3~\x1b[H\x1b[4~\x1bb\x1b\r\x1b[99;99~\x1b\x1b[C";
        let want = [
            Key::Up,
            Key::Down,
            Key::WordRight,
            Key::WordLeft,
            Key::Delete,
            Key::Home,
            Key::End,
            Key::Alt('b'),
            Key::Alt('\r'),
            Key::Right,
        ];
        assert_eq!(keys(&[typed]), want);
        let bytes: Vec<&[u8]> = typed.chunks(1).collect();
        assert_eq!(keys(&bytes), want);
        // A sequence without an end does not swallow what follows.
        let endless = [b"\x1b[".to_vec(), vec![b'1'; 100], b"x\r".to_vec()].concat();
        assert!(keys(&[&endless]).contains(&Key::Enter));
    }
}
