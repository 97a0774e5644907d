//! The word rules of the named pre-tokenizers, without an engine for expressions.
//!
//! The alternatives of the expressions in `pre.rs`, tried in their order at each place:
//!
//! ```text
//! contraction   's 't 're 've 'm 'll 'd                 GLM and QWEN ignore case
//! letters       [^\r\n\p{L}\p{N}]?\p{L}+               GPT2: a space may lead, nothing else
//! digits        \p{N}{1,3}                              QWEN: one; GPT2: any number after a space or none
//! the rest       ?[^\s\p{L}\p{N}]+[\r\n]*               GPT2: without the line ends
//! line ends     \s*[\r\n]+                              not in GPT2
//! white space   \s+(?!\S)|\s+                           the last one is left for the word it leads
//! ```
//! Smollm cuts the text at every \p{N} first, and the parts between as GPT2 does: a number is a word of its own, and white
//! space before one ends its part.
//!
//! **Invariant:** the words, put together, are the text, and they equal the words of the expressions (tested).

use super::pre::Style;

/// Cuts the first word off a text that is not empty; its length in bytes. Reads little beyond the word, so that cutting a
/// text takes time in proportion to its length.
pub(super) fn first_word(style: Style, text: &str) -> usize {
    contraction(style, text)
        .or_else(|| letters(style, text))
        .or_else(|| digits(style, text))
        .or_else(|| others(style, text))
        .unwrap_or_else(|| white_space(style, text))
}

fn contraction(style: Style, text: &str) -> Option<usize> {
    let rest = text.strip_prefix('\'')?;
    ["s", "t", "re", "ve", "m", "ll", "d"].into_iter().find_map(|end| match style {
        Style::Gpt2 | Style::Smollm => rest.starts_with(end).then_some(1 + end.len()),
        Style::Glm | Style::Qwen => fold_prefix(rest, end).map(|len| 1 + len),
    })
}

/// The length of what `text` begins with, if that is `end` but for case.
fn fold_prefix(text: &str, end: &str) -> Option<usize> {
    let mut chars = text.chars();
    let mut len = 0;
    for wanted in end.chars() {
        let c = chars.next()?;
        // The long s is an s without its case.
        if c.to_ascii_lowercase() != wanted && (c, wanted) != ('\u{17f}', 's') {
            return None;
        }
        len += c.len_utf8();
    }
    Some(len)
}

fn letters(style: Style, text: &str) -> Option<usize> {
    let first = text.chars().next()?;
    let leads = match style {
        Style::Gpt2 | Style::Smollm => first == ' ',
        Style::Glm | Style::Qwen => !matches!(first, '\r' | '\n') && !is_letter(first) && !first.is_numeric(),
    };
    let lead = if leads { first.len_utf8() } else { 0 };
    run(&text[lead..], is_letter).map(|len| lead + len)
}

fn digits(style: Style, text: &str) -> Option<usize> {
    let most = match style {
        Style::Glm => 3,
        Style::Qwen | Style::Smollm => 1,
        Style::Gpt2 => {
            let lead = usize::from(text.starts_with(' '));
            return run(&text[lead..], char::is_numeric).map(|len| lead + len);
        }
    };
    let len: usize = text.chars().take(most).take_while(|c| c.is_numeric()).map(char::len_utf8).sum();
    (len > 0).then_some(len)
}

fn others(style: Style, text: &str) -> Option<usize> {
    let lead = usize::from(text.starts_with(' '));
    let len = lead + run(&text[lead..], |c| !c.is_whitespace() && !is_letter(c) && !c.is_numeric())?;
    let ends = match style {
        Style::Gpt2 | Style::Smollm => None,
        Style::Glm | Style::Qwen => run(&text[len..], |c| matches!(c, '\r' | '\n')),
    };
    Some(len + ends.unwrap_or(0))
}

fn white_space(style: Style, text: &str) -> usize {
    let all = run(text, char::is_whitespace).expect("what is no letter, digit or other is white space");
    let space = &text[..all];
    if let (Style::Glm | Style::Qwen, Some(last)) = (style, space.rfind(['\r', '\n'])) {
        return last + 1;
    }
    let last = space.chars().next_back().map_or(0, char::len_utf8);
    let ends_part = all == text.len() || style == Style::Smollm && text[all..].starts_with(char::is_numeric);
    if ends_part || all == last { all } else { all - last }
}

/// The bytes of the characters at the start that are `wanted`, if there are any.
fn run(text: &str, wanted: impl Fn(char) -> bool) -> Option<usize> {
    let len = text.find(|c| !wanted(c)).unwrap_or(text.len());
    (len > 0).then_some(len)
}

/// Whether a character is in the general category L.
fn is_letter(c: char) -> bool {
    let code = u32::from(c);
    let marked = || {
        let at = ALPHABETIC_MARKS.partition_point(|&(_, end)| end < code);
        ALPHABETIC_MARKS.get(at).is_some_and(|&(start, _)| start <= code)
    };
    c.is_alphabetic() && !c.is_numeric() && !marked()
}

/// Ranges without letters that hold every character which the standard library calls alphabetic and which is neither a
/// letter nor a number: vowel signs and the like. Made by asking `char::is_alphabetic` and the regex crate about every
/// character.
#[rustfmt::skip]
const ALPHABETIC_MARKS: [(u32, u32); 181] = [
    (0x345, 0x36f), (0x5b0, 0x5c7), (0x610, 0x61a), (0x64b, 0x65f), (0x670, 0x670), (0x6d6, 0x6e4), (0x6e7, 0x6ed),
    (0x711, 0x711), (0x730, 0x73f), (0x7a6, 0x7b0), (0x816, 0x817), (0x81b, 0x823), (0x825, 0x827), (0x829, 0x82c),
    (0x88f, 0x897), (0x8d4, 0x903), (0x93a, 0x93b), (0x93e, 0x94f), (0x955, 0x957), (0x962, 0x963), (0x981, 0x983),
    (0x9be, 0x9cc), (0x9d7, 0x9d7), (0x9e2, 0x9e3), (0xa01, 0xa03), (0xa3e, 0xa51), (0xa70, 0xa71), (0xa75, 0xa83),
    (0xabe, 0xacc), (0xae2, 0xae3), (0xafa, 0xb03), (0xb3e, 0xb57), (0xb62, 0xb63), (0xb82, 0xb82), (0xbbe, 0xbcc),
    (0xbd7, 0xc04), (0xc3e, 0xc56), (0xc5c, 0xc5c), (0xc62, 0xc63), (0xc81, 0xc83), (0xcbe, 0xcdc), (0xce2, 0xce3),
    (0xcf3, 0xd03), (0xd3e, 0xd4c), (0xd57, 0xd57), (0xd62, 0xd63), (0xd81, 0xd83), (0xdcf, 0xdf3), (0xe31, 0xe31),
    (0xe34, 0xe3a), (0xe4d, 0xe4d), (0xeb1, 0xeb1), (0xeb4, 0xebc), (0xecd, 0xecd), (0xf71, 0xf83), (0xf8d, 0xfbc),
    (0x102b, 0x103e), (0x1056, 0x1059), (0x105e, 0x1060), (0x1062, 0x1064), (0x1067, 0x106d), (0x1071, 0x1074), (0x1082, 0x108d),
    (0x108f, 0x109d), (0x1712, 0x1713), (0x1732, 0x1733), (0x1752, 0x1753), (0x1772, 0x1773), (0x17b6, 0x17c8), (0x1885, 0x1886),
    (0x18a9, 0x18a9), (0x1920, 0x1938), (0x1a17, 0x1a1b), (0x1a55, 0x1a74), (0x1abf, 0x1b04), (0x1b35, 0x1b43), (0x1b80, 0x1b82),
    (0x1ba1, 0x1bad), (0x1be7, 0x1bf1), (0x1c24, 0x1c36), (0x1dd3, 0x1df4), (0x24b6, 0x24e9), (0x2de0, 0x2dff), (0xa674, 0xa67b),
    (0xa69e, 0xa69f), (0xa7ce, 0xa7cf), (0xa7d2, 0xa7d2), (0xa7d4, 0xa7d4), (0xa7f1, 0xa7f1), (0xa802, 0xa802), (0xa80b, 0xa80b),
    (0xa823, 0xa827), (0xa880, 0xa881), (0xa8b4, 0xa8c5), (0xa8ff, 0xa8ff), (0xa926, 0xa92a), (0xa947, 0xa952), (0xa980, 0xa983),
    (0xa9b4, 0xa9bf), (0xa9e5, 0xa9e5), (0xaa29, 0xaa36), (0xaa43, 0xaa43), (0xaa4c, 0xaa4d), (0xaa7b, 0xaa7d), (0xaab0, 0xaab0),
    (0xaab2, 0xaab4), (0xaab7, 0xaab8), (0xaabe, 0xaabe), (0xaaeb, 0xaaef), (0xaaf5, 0xaaf5), (0xabe3, 0xabea), (0xfb1e, 0xfb1e),
    (0x10376, 0x1037a), (0x10940, 0x10959), (0x10a01, 0x10a0f), (0x10d24, 0x10d27), (0x10d69, 0x10d69), (0x10eab, 0x10eac), (0x10ec5, 0x10efc),
    (0x11000, 0x11002), (0x11038, 0x11045), (0x11073, 0x11074), (0x11080, 0x11082), (0x110b0, 0x110c2), (0x11100, 0x11102), (0x11127, 0x11132),
    (0x11145, 0x11146), (0x11180, 0x11182), (0x111b3, 0x111bf), (0x111ce, 0x111cf), (0x1122c, 0x1123e), (0x11241, 0x11241), (0x112df, 0x11303),
    (0x1133e, 0x1134c), (0x11357, 0x11357), (0x11362, 0x11363), (0x113b8, 0x113cd), (0x11435, 0x11445), (0x114b0, 0x114c1), (0x115af, 0x115be),
    (0x115dc, 0x115dd), (0x11630, 0x11640), (0x116ab, 0x116b5), (0x1171d, 0x1172a), (0x1182c, 0x11838), (0x11930, 0x1193c), (0x11940, 0x11940),
    (0x11942, 0x11942), (0x119d1, 0x119df), (0x119e4, 0x119e4), (0x11a01, 0x11a0a), (0x11a35, 0x11a39), (0x11a3b, 0x11a3e), (0x11a51, 0x11a5b),
    (0x11a8a, 0x11a97), (0x11b60, 0x11b67), (0x11c2f, 0x11c3e), (0x11c92, 0x11cb6), (0x11d31, 0x11d43), (0x11d47, 0x11d47), (0x11d8a, 0x11d96),
    (0x11db0, 0x11ddb), (0x11ef3, 0x11f01), (0x11f03, 0x11f03), (0x11f34, 0x11f40), (0x1611e, 0x1612e), (0x16ea0, 0x16ed3), (0x16f4f, 0x16f4f),
    (0x16f51, 0x16f92), (0x16ff0, 0x16ff3), (0x187f8, 0x187ff), (0x18d09, 0x18df2), (0x1bc9e, 0x1bc9e), (0x1e000, 0x1e02a), (0x1e08f, 0x1e08f),
    (0x1e6c0, 0x1e6ff), (0x1e947, 0x1e947), (0x1f130, 0x1f189), (0x2b73a, 0x2b73f), (0x2cea2, 0x2cead), (0x323b0, 0x33479),
];

#[cfg(all(test, feature = "tokenizers"))]
mod tests {
    use crate::text::tokenizer::pre::{GGUF_SCHEMES, PreTokenizer, Scheme, Style};
    use crate::text::tokenizer::words::first_word;
    use proptest::prelude::*;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper};

    fn by_hand(style: Style, mut text: &str) -> Vec<&str> {
        let mut words = Vec::new();
        while !text.is_empty() {
            let (word, rest) = text.split_at(first_word(style, text));
            words.push(word);
            text = rest;
        }
        words
    }

    /// The words of a scheme's expressions.
    fn by_expression<'t>(scheme: &'static Scheme, text: &'t str) -> Vec<&'t str> {
        let (json, _) = PreTokenizer::Gguf(scheme).to_json();
        let reference: PreTokenizerWrapper = serde_json::from_value(json).expect("a pre-tokenizer of the library");
        let mut cut = PreTokenizedString::from(text);
        reference.pre_tokenize(&mut cut).expect("every text can be cut");
        let splits = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(_, (start, end), _)| &text[start..end]).collect()
    }

    /// The words of every named scheme, by hand and by expression.
    fn check(text: &str) {
        for scheme in &GGUF_SCHEMES {
            let Some(style) = scheme.style else { continue };
            assert_eq!(by_hand(style, text), by_expression(scheme, text), "{:?} {text:?}", scheme.names);
        }
    }

    #[test]
    fn schemes_of_several_expressions_cut_as_another_engine_does() {
        let text = std::fs::read_to_string(fixtures::path("goldens/words.json")).expect("the golden reads");
        let goldens: Vec<serde_json::Value> = serde_json::from_str(&text).expect("the golden is JSON");
        for scheme in GGUF_SCHEMES.iter().filter(|scheme| scheme.patterns.len() > 1) {
            let own: Vec<_> = goldens.iter().filter(|golden| golden["scheme"] == scheme.names[0]).collect();
            assert!(own.len() > 5, "{:?}", scheme.names);
            for golden in own {
                let text = golden["text"].as_str().expect("a text");
                assert_eq!(
                    serde_json::json!(by_expression(scheme, text)),
                    golden["words"],
                    "{:?} {text:?}",
                    scheme.names
                );
            }
        }
    }

    /// Every character of the basic plane between letters: it joins them, stands alone or leads the next ones.
    #[test]
    fn every_character_is_cut_like_the_expression() {
        let all: Vec<char> = (0..=0xffff).filter_map(char::from_u32).collect();
        for some in all.chunks(0x1000) {
            check(&some.iter().map(|c| format!("a{c}b{c}1 ")).collect::<String>());
        }
    }

    /// A rule that looks for the next number at each word would read this text a million times.
    #[test]
    fn a_long_text_without_numbers_is_cut_in_one_pass() {
        let text = "a ".repeat(1 << 21);
        assert_eq!(by_hand(Style::Smollm, &text).len(), (1 << 21) + 1);
    }

    proptest! {
        #[test]
        fn words_are_those_of_the_expressions(
            text in "([ab1٣Ⅷ²'sStTlLrRevEmDſ .,!\\-\r\n\t\u{a0}\u{301}éक\u{93f}漢🚀]|'ll|'RE|  ){0,24}",
        ) {
            check(&text);
        }
    }
}
