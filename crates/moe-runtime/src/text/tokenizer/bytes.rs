//! The alphabet of byte-level BPE: every byte as one printable character.
//!
//! Bytes 0x21..7E, A1..AC and AE..FF stand for themselves; the other 68 take U+0100, U+0101, ... in ascending order,
//! so a space is `Ġ` and a line feed `Ċ`.
//!
//! Source: the GPT-2 encoder; GGUF's tokenizer model `gpt2` uses the same.

use std::collections::HashMap;
use std::sync::LazyLock;

/// The character of each byte.
pub(super) static CHARS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = 0x100u32;
    std::array::from_fn(|byte| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => byte as u8 as char,
        _ => {
            let c = char::from_u32(next).expect("U+0100 to U+0143 are characters");
            next += 1;
            c
        }
    })
});

static BYTES: LazyLock<HashMap<char, u8>> = LazyLock::new(|| CHARS.iter().copied().zip(0..=255).collect());

/// Appends the bytes that a token's text spells; a text outside the alphabet is taken literally.
pub(super) fn decode_into(text: &str, out: &mut Vec<u8>) {
    let start = out.len();
    for c in text.chars() {
        let Some(&byte) = BYTES.get(&c) else {
            out.truncate(start);
            out.extend_from_slice(text.as_bytes());
            return;
        };
        out.push(byte);
    }
}

/// Appends the byte of a token spelled `<0xNN>`; another text is taken literally.
pub(super) fn hex_into(text: &str, out: &mut Vec<u8>) {
    let digits = text.strip_prefix("<0x").and_then(|t| t.strip_suffix('>')).filter(|d| d.len() == 2);
    match digits.and_then(|d| u8::from_str_radix(d, 16).ok()) {
        Some(byte) => out.push(byte),
        None => out.extend_from_slice(text.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::{CHARS, decode_into, hex_into};

    #[test]
    fn known_characters() {
        for (byte, c) in [(b' ', 'Ġ'), (b'\n', 'Ċ'), (b'!', '!'), (0, 'Ā'), (0x7f, 'ġ'), (0xad, 'Ń'), (0xff, 'ÿ')]
        {
            assert_eq!(CHARS[usize::from(byte)], c);
        }
    }

    #[test]
    fn every_byte_comes_back() {
        let text: String = CHARS.iter().collect();
        let mut out = Vec::new();
        decode_into(&text, &mut out);
        assert_eq!(out, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn strange_texts_are_literal() {
        for (text, want) in [("a b", "a b"), ("<0x4G>", "<0x4G>"), ("<0x041>", "<0x041>"), ("<0x41>", "A")] {
            let mut out = vec![b'_'];
            hex_into(text, &mut out);
            assert_eq!(out[1..], *want.as_bytes());
        }
        let mut out = b"x".to_vec();
        decode_into("Ġ語", &mut out);
        assert_eq!(out, "xĠ語".as_bytes());
    }
}
