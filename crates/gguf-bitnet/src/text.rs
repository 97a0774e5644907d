//! Text of a file: UTF-8, or UTF-16 behind a byte order mark. The mark is no part of the text.

use std::borrow::Cow;

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
const UTF16_LE_MARK: &[u8] = b"\xff\xfe";
const UTF16_BE_MARK: &[u8] = b"\xfe\xff";
const UTF32_LE_MARK: &[u8] = b"\xff\xfe\0\0";
const UTF32_BE_MARK: &[u8] = b"\0\0\xfe\xff";

/// Bytes that are no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message names its fields")]
pub enum NotText {
    /// Neither UTF-8 nor marked as UTF-16.
    #[error("not UTF-8 text (byte {at} is {byte:#04x}): convert it first")]
    Utf8 { at: usize, byte: u8 },
    /// Marked as UTF-16, and no such text.
    #[error("marked as UTF-16, but it ends in half a character or holds half a pair: convert it to UTF-8 first")]
    Utf16,
    /// Marked as UTF-32, which is not read.
    #[error("UTF-32 text: convert it to UTF-8 first")]
    Utf32,
}

/// The text of `bytes` without its byte order mark.
///
/// # Errors
/// [`NotText`] for bytes that are neither UTF-8 nor, by their mark, UTF-16.
pub(crate) fn decode_text(bytes: Vec<u8>) -> Result<String, NotText> {
    if bytes.starts_with(UTF32_LE_MARK) || bytes.starts_with(UTF32_BE_MARK) {
        return Err(NotText::Utf32);
    }
    if let Some(units) = bytes.strip_prefix(UTF16_LE_MARK) {
        return utf16(units, u16::from_le_bytes);
    }
    if let Some(units) = bytes.strip_prefix(UTF16_BE_MARK) {
        return utf16(units, u16::from_be_bytes);
    }
    let bytes = match bytes.strip_prefix(UTF8_MARK) {
        Some(rest) => rest.to_vec(),
        None => bytes,
    };
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        NotText::Utf8 { at, byte: error.as_bytes()[at] }
    })
}

/// A text from elsewhere without its byte order mark.
#[must_use]
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The text with `\n` in place of every `\r\n` and `\r`.
///
/// ```
/// assert_eq!(gguf_bitnet::with_line_feeds("a\r\nb\rc\n"), "a\nb\nc\n");
/// ```
#[must_use]
pub fn with_line_feeds(text: &str) -> Cow<'_, str> {
    match text.contains('\r') {
        true => text.replace("\r\n", "\n").replace('\r', "\n").into(),
        false => text.into(),
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, NotText> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(NotText::Utf16);
    }
    char::decode_utf16(pairs.iter().copied().map(unit)).collect::<Result<String, _>>().map_err(|_| NotText::Utf16)
}

#[cfg(test)]
mod tests {
    use super::{NotText, decode_text, with_line_feeds, without_mark};

    #[test]
    fn a_mark_tells_the_encoding_and_is_no_text() {
        let text = "gr\u{fc}n \u{1f600}\r\n";
        let units = |order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect::<Vec<u8>>();
        let marked = [
            text.as_bytes().to_vec(),
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            [b"\xff\xfe".to_vec(), units(u16::to_le_bytes)].concat(),
            [b"\xfe\xff".to_vec(), units(u16::to_be_bytes)].concat(),
        ];
        for bytes in marked {
            assert_eq!(decode_text(bytes).as_deref(), Ok(text));
        }
        assert_eq!(decode_text(b"\xff\xfe".to_vec()).as_deref(), Ok(""));
        assert_eq!(decode_text(b"\xef\xbb\xbf\xef\xbb\xbf".to_vec()).as_deref(), Ok("\u{feff}"), "one mark");
        assert_eq!(without_mark("\u{feff}a\u{feff}"), "a\u{feff}");
    }

    #[test]
    fn other_bytes_are_refused_with_their_place() {
        let cases: [(&[u8], NotText); 6] = [
            (b"caf\xe9 au lait", NotText::Utf8 { at: 3, byte: 0xe9 }),
            (b"ab\xe2\x82", NotText::Utf8 { at: 2, byte: 0xe2 }),
            (b"\xff\xfea", NotText::Utf16),
            (b"\xff\xfe\x00\xd8", NotText::Utf16),
            (b"\xff\xfe\0\0a\0\0\0", NotText::Utf32),
            (b"\0\0\xfe\xff\0\0\0a", NotText::Utf32),
        ];
        for (bytes, want) in cases {
            assert_eq!(decode_text(bytes.to_vec()), Err(want));
        }
    }

    #[test]
    fn every_end_of_a_line_becomes_a_line_feed() {
        assert_eq!(with_line_feeds("\r\r\n\n\r"), "\n\n\n\n");
        assert_eq!(with_line_feeds("no end"), "no end");
    }
}
