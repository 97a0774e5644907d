//! The string literals that a template compares with content or searches content for, and the names that it looks up.
//!
//! `'</think>' in content`, `content.split('</think>')`, `role == '<x>'`: content holds stand-ins in place of some
//! characters (see `stand_ins`), so these literals need the same stand-ins to find what they look for. Literals that are
//! written into the prompt must stay as they are. The difference is read from the neighbours of the literal, without a
//! full parser; a literal that is judged wrongly gives another text than the plain rendering, and the caller notices.

use std::collections::HashSet;
use std::ops::Range;

/// Methods, filters and tests whose arguments are searched for.
const SEARCHES: [&str; 21] = [
    "split",
    "rsplit",
    "partition",
    "rpartition",
    "startswith",
    "endswith",
    "find",
    "rfind",
    "index",
    "rindex",
    "count",
    "replace",
    "strip",
    "lstrip",
    "rstrip",
    "trim",
    "removeprefix",
    "removesuffix",
    "eq",
    "equalto",
    "ne",
];

/// A part of an expression: its text, and where it begins in the source.
struct Part<'a> {
    text: &'a str,
    start: usize,
}

impl Part<'_> {
    fn is_string(&self) -> bool {
        self.text.starts_with(['\'', '"'])
    }

    fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
    }

    /// The place of a string in the source, without its quotes.
    fn content(&self) -> Range<usize> {
        self.start + 1..self.start + self.text.len() - 1
    }
}

/// The places in `source` of the contents of all literals that are compared or searched for, in their order.
pub(super) fn searched(source: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    each_block(source, |parts| {
        let searched = (0..parts.len()).filter(|&i| parts[i].is_string() && is_searched(parts, i));
        found.extend(searched.map(|i| parts[i].content()));
    });
    found
}

/// The names by which a template looks into its input.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The contents of all string literals, as they are spelled.
    pub(super) literals: HashSet<String>,
    /// The words behind a point.
    pub(super) attributes: HashSet<String>,
}

impl Names {
    /// The names in all blocks of a template.
    pub(super) fn of(source: &str) -> Self {
        let mut names = Self::default();
        each_block(source, |parts| {
            let strings = parts.iter().filter(|part| part.is_string());
            names.literals.extend(strings.map(|part| source[part.content()].to_owned()));
            let pairs = parts.windows(2).filter(|pair| pair[0].text == "." && pair[1].is_word());
            names.attributes.extend(pairs.map(|pair| pair[1].text.to_owned()));
        });
        names
    }
}

/// Shows the parts of each block of a template, in their order; comments and raw text have none.
fn each_block(source: &str, mut see: impl FnMut(&[Part<'_>])) {
    let mut at = 0;
    while let Some(open) = source[at..].find("{").map(|offset| at + offset) {
        at = match source.as_bytes().get(open + 1) {
            Some(b'#') => source[open..].find("#}").map_or(source.len(), |end| open + end + 2),
            Some(b'{' | b'%') => {
                let (parts, end) = parts(source, open + 2);
                see(&parts);
                let is_raw = parts.iter().find(|part| part.text != "-").is_some_and(|part| part.text == "raw");
                match is_raw {
                    true => source[end..].find("endraw").map_or(source.len(), |offset| end + offset),
                    false => end,
                }
            }
            _ => open + 1,
        };
    }
}

/// The parts of one block from `at` on, and the place behind the block.
fn parts(source: &str, mut at: usize) -> (Vec<Part<'_>>, usize) {
    let mut parts: Vec<Part<'_>> = Vec::new();
    let mut braces = 0usize;
    while let Some(first) = source[at..].chars().next() {
        let rest = &source[at..];
        let len = match first {
            '\'' | '"' => match string_len(rest, first) {
                Some(len) => len,
                None => break,
            },
            c if c.is_alphanumeric() || c == '_' => {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            }
            _ if rest.starts_with("%}") || (braces == 0 && rest.starts_with("}}")) => return (parts, at + 2),
            _ if rest.starts_with("==") || rest.starts_with("!=") => 2,
            c => {
                match c {
                    '{' => braces += 1,
                    '}' => braces = braces.saturating_sub(1),
                    _ => {}
                }
                c.len_utf8()
            }
        };
        if !first.is_whitespace() {
            parts.push(Part { text: &rest[..len], start: at });
        }
        at += len;
    }
    (parts, source.len())
}

/// The length of the literal that `rest` begins with, its quotes included.
fn string_len(rest: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    let end = rest.char_indices().skip(1).find(|&(_, c)| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.map(|(at, c)| at + c.len_utf8())
}

fn is_searched(parts: &[Part<'_>], at: usize) -> bool {
    let text = |i: Option<usize>| i.and_then(|i| parts.get(i)).map_or("", |part| part.text);
    let (before, next, after) = (text(at.checked_sub(1)), text(Some(at + 1)), text(Some(at + 2)));
    let compares = |text: &str| matches!(text, "==" | "!=" | "in");
    if compares(before) || compares(next) || (next == "not" && after == "in") {
        return true;
    }
    // Back to the bracket that encloses the literal; `commas` is the number of arguments before it.
    let (mut depth, mut commas) = (0usize, 0);
    for i in (0..at).rev() {
        match parts[i].text {
            ")" | "]" | "}" => depth += 1,
            "(" | "[" | "{" if depth > 0 => depth -= 1,
            "(" => {
                let Some(name) = i.checked_sub(1).map(|i| &parts[i]).filter(|part| part.is_word()) else {
                    return false;
                };
                return SEARCHES.contains(&name.text) && (name.text != "replace" || commas == 0);
            }
            "[" => return i > 0 && parts[i - 1].text == "in",
            "{" => return false,
            "," if depth == 0 => commas += 1,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{Names, searched};

    #[test]
    fn names_are_literals_and_attributes_of_blocks() {
        let source = "'a' .b {# 'c' .d #}{% if m.role == 'tool' and m['x'] is x.y.z %}{% raw %}'e'{% endraw %}\
            {{ f(\"it's\") ~ '' ~ '.g' ~ 'it\\'s' }}";
        let names = Names::of(source);
        let sorted = |names: std::collections::HashSet<String>| {
            let mut names: Vec<String> = names.into_iter().collect();
            names.sort_unstable();
            names
        };
        assert_eq!(sorted(names.literals), ["", ".g", "it's", "it\\'s", "tool", "x"]);
        assert_eq!(sorted(names.attributes), ["role", "y", "z"]);
    }

    #[test]
    fn searches_are_told_from_what_is_written() {
        for (source, want) in [
            ("{{ '<a>' }}{{ '<b>' + x + '<c>' }}", &[][..]),
            ("'<a>' in x {# {{ '<a>' in x }} #}", &[]),
            ("{% if '<a>' in x and '<b>' not in y %}<c>{% endif %}", &["<a>", "<b>"]),
            ("{{- x.split('<a>')[0].rstrip('\\n').split(\"<b>\")[-1] + '<c>' -}}", &["<a>", "\\n", "<b>"]),
            ("{{ x.replace('<a>', '<b>') | replace('<c>', '<d>') }}", &["<a>", "<c>"]),
            ("{{ x == '<a>' }}{{ '<b>' != x }}{{ '<c>' if y else '<d>' }}", &["<a>", "<b>"]),
            ("{{ x in ['<a>', '<b>'] }}{{ {'k': '<c>', 'l': {}} }}", &["<a>", "<b>"]),
            ("{{ f('<a>') }}{{ x.split('<b>' ~ f(y)) }}{{ x is eq('it\\'s') }}", &["<b>", "it\\'s"]),
            ("{% raw %}{{ '<a>' in x }}{% endraw %}{{ '<b>' in x }}", &["<b>"]),
            ("{{ 'never ends", &[]),
            ("{", &[]),
        ] {
            let got: Vec<&str> = searched(source).into_iter().map(|place| &source[place]).collect();
            assert_eq!(got, want, "{source}");
        }
    }
}
