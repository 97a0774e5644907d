//! The tags of a template as names, numbers, texts, operators and groups in brackets.

/// Deepest nesting of brackets that is read; the engine's parser refuses deeper ones.
const MAX_DEPTH: usize = 100;

/// Text that stays, or a tag `{{ ... }}` or `{% ... %}`.
pub(super) enum Piece<'a> {
    Text(&'a str),
    Tag { open: &'a str, items: Vec<Item<'a>>, rest: &'a str, close: &'a str },
}

/// A token with the white space before it.
pub(super) enum Item<'a> {
    Token { space: &'a str, text: &'a str, kind: Kind },
    Group { space: &'a str, open: char, items: Vec<Item<'a>>, rest: &'a str, close: char },
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Name,
    Number,
    Text,
    Operator,
}

impl Item<'_> {
    /// Whether it is this name or operator.
    pub(super) fn is(&self, want: &str) -> bool {
        matches!(self, Item::Token { text, kind: Kind::Name | Kind::Operator, .. } if *text == want)
    }
}

/// The pieces of a template.
pub(super) fn split(source: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut from, mut at) = (0, 0);
    while let Some(found) = source[at..].find('{') {
        let start = at + found;
        at = start + 1;
        if source[start..].starts_with("{#") {
            let Some(end) = source[start..].find("#}") else { break };
            at = start + end + 2;
        } else if source[start..].starts_with("{{") || source[start..].starts_with("{%") {
            let Some((tag, end)) = tag(source, start) else { break };
            pieces.push(Piece::Text(&source[from..start]));
            let raw = matches!(&tag, Piece::Tag { open, items, .. } if open.starts_with("{%") && items.len() == 1 && items[0].is("raw"));
            pieces.push(tag);
            (from, at) = (end, end);
            if raw {
                let Some(end) = end_of_raw(source, at) else { break };
                at = end;
            }
        }
    }
    pieces.push(Piece::Text(&source[from..]));
    pieces
}

/// Where the tag `endraw` begins.
fn end_of_raw(source: &str, from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += source[at..].find("{%")?;
        if source[at + 2..].trim_start_matches(['-', '+']).trim_start().starts_with("endraw") {
            return Some(at);
        }
        at += 2;
    }
}

/// The tag that begins at `start`, and where it ends.
fn tag(source: &str, start: usize) -> Option<(Piece<'_>, usize)> {
    let mark = if source[start + 2..].starts_with(['-', '+']) { 3 } else { 2 };
    let ends: &[&str] = if source[start..].starts_with("{{") { &["-}}", "}}"] } else { &["-%}", "+%}", "%}"] };
    let mut lexer = Lexer { source, at: start + mark };
    let (items, rest) = lexer.items(ends, None, 0)?;
    let close = ends.iter().find(|end| source[lexer.at..].starts_with(**end))?;
    let end = lexer.at + close.len();
    Some((Piece::Tag { open: &source[start..start + mark], items, rest, close: &source[lexer.at..end] }, end))
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    /// The items up to one of `ends` (or the bracket `close` inside of brackets), and the white space before it.
    fn items(&mut self, ends: &[&str], close: Option<char>, depth: usize) -> Option<(Vec<Item<'a>>, &'a str)> {
        if depth > MAX_DEPTH {
            return None;
        }
        let source = self.source;
        let mut items: Vec<Item<'a>> = Vec::new();
        loop {
            let begin = self.at;
            self.at += source[begin..].len() - source[begin..].trim_start().len();
            let space = &source[begin..self.at];
            let rest = &source[self.at..];
            let first = rest.chars().next()?;
            match close {
                Some(close) if first == close => {
                    self.at += 1;
                    return Some((items, space));
                }
                None if ends.iter().any(|end| rest.starts_with(end)) => return Some((items, space)),
                _ => {}
            }
            if let Some(close) = closing(first) {
                self.at += 1;
                let (inner, rest) = self.items(ends, Some(close), depth + 1)?;
                items.push(Item::Group { space, open: first, items: inner, rest, close });
                continue;
            }
            let (length, kind) = token(rest, first)?;
            self.at += length;
            let text = &rest[..length];
            items.push(Item::Token { space, text, kind });
        }
    }
}

fn closing(open: char) -> Option<char> {
    match open {
        '(' => Some(')'),
        '[' => Some(']'),
        '{' => Some('}'),
        _ => None,
    }
}

/// Length and kind of the token that `rest` begins with.
fn token(rest: &str, first: char) -> Option<(usize, Kind)> {
    if first == '\'' || first == '"' {
        let mut escaped = false;
        for (i, c) in rest.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == first => return Some((i + 1, Kind::Text)),
                _ => {}
            }
        }
        return None;
    }
    let word =
        |from: usize| rest[from..].find(|c: char| !c.is_alphanumeric() && c != '_').map_or(rest.len(), |n| from + n);
    if first.is_ascii_digit() {
        let mut end = word(0);
        if rest[end..].starts_with('.') && rest[end + 1..].starts_with(|c: char| c.is_ascii_digit()) {
            end = word(end + 1);
        }
        let exponent = rest[..end].ends_with(['e', 'E']) && !rest.starts_with("0x");
        if exponent && rest[end..].starts_with(['+', '-']) {
            end = word(end + 1);
        }
        return Some((end, Kind::Number));
    }
    if first.is_alphabetic() || first == '_' {
        return Some((word(0), Kind::Name));
    }
    let pairs = ["**", "//", "==", "!=", "<=", ">="];
    if pairs.iter().any(|pair| rest.starts_with(pair)) {
        return Some((2, Kind::Operator));
    }
    "+-*/%~|.,:=<>".contains(first).then_some((1, Kind::Operator))
}
