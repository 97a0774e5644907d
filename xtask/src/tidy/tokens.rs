//! Rust source as names, marks and comments: enough to follow paths and to read prose, far from a parser.
//!
//! Strings, characters and numbers are one token each, so that nothing inside them is taken for code; lifetimes and
//! labels are left out.

/// One token with the line it starts on, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) line: usize,
    pub(super) kind: Kind<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// An identifier or a keyword, without `r#`.
    Name(&'a str),
    /// The two colons between the segments of a path.
    PathSep,
    /// Any other character of code.
    Mark(char),
    /// A string without its quotes, as it is written.
    Text(&'a str),
    /// A number or a character.
    Literal,
    /// A comment with its slashes; a block comment is one token.
    Comment(&'a str),
}

/// The tokens of a file, comments included.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut reader = Reader { text, at: 0, line: 1 };
    let mut found = Vec::new();
    while let Some(token) = reader.next_token() {
        found.push(token);
    }
    found
}

/// The tokens of the code alone.
pub(super) fn code(text: &str) -> Vec<Token<'_>> {
    let mut found = tokens(text);
    found.retain(|token| !matches!(token.kind, Kind::Comment(_)));
    found
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Takes `bytes` bytes and counts their lines.
    fn take(&mut self, bytes: usize) -> &'a str {
        let taken = &self.rest()[..bytes];
        self.line += taken.bytes().filter(|b| *b == b'\n').count();
        self.at += bytes;
        taken
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        self.take(rest.find(|c| !keep(c)).unwrap_or(rest.len()))
    }

    fn next_token(&mut self) -> Option<Token<'a>> {
        loop {
            self.take_while(char::is_whitespace);
            let line = self.line;
            let first = self.rest().chars().next()?;
            if let Some(kind) = self.kind(first) {
                return Some(Token { line, kind });
            }
        }
    }

    /// The next token; `None` for a lifetime, which is passed over.
    fn kind(&mut self, first: char) -> Option<Kind<'a>> {
        let rest = self.rest();
        if rest.starts_with("//") {
            return Some(Kind::Comment(self.take_while(|c| c != '\n')));
        }
        if rest.starts_with("/*") {
            return Some(Kind::Comment(self.take(block_comment(rest))));
        }
        if let Some((prefix, hashes)) = raw_string(rest) {
            self.take(prefix);
            return Some(Kind::Text(self.until(&format!("\"{}", "#".repeat(hashes)))));
        }
        for prefix in ["b\"", "c\"", "\""] {
            if rest.starts_with(prefix) {
                self.take(prefix.len());
                return Some(Kind::Text(self.quoted()));
            }
        }
        if first == '\'' || rest.starts_with("b'") {
            return self.character();
        }
        if rest.starts_with("::") {
            self.take(2);
            return Some(Kind::PathSep);
        }
        if let Some(raw) = rest.strip_prefix("r#").filter(|raw| raw.starts_with(is_start)) {
            let _ = raw;
            self.take(2);
        }
        if self.rest().starts_with(is_start) {
            return Some(Kind::Name(self.take_while(is_name)));
        }
        if first.is_ascii_digit() {
            // `0..3` is a range, so a dot ends the number; the dot of a fraction becomes a mark, which no rule reads.
            self.take_while(is_name);
            return Some(Kind::Literal);
        }
        self.take(first.len_utf8());
        Some(Kind::Mark(first))
    }

    /// Everything before `end`, which is taken too.
    fn until(&mut self, end: &str) -> &'a str {
        let length = self.rest().find(end).unwrap_or(self.rest().len());
        let text = self.take(length);
        self.take(end.len().min(self.rest().len()));
        text
    }

    /// A string after its opening quote; a backslash protects what follows it.
    fn quoted(&mut self) -> &'a str {
        let bytes = self.rest().as_bytes();
        let mut end = 0;
        while end < bytes.len() && bytes[end] != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        let end = end.min(bytes.len());
        let text = self.take(end);
        self.take(1.min(self.rest().len()));
        text
    }

    /// A character such as `'a'` or `b'\n'`; `None` for the lifetime `'a`.
    fn character(&mut self) -> Option<Kind<'a>> {
        self.take(self.rest().find('\'').unwrap_or_default() + 1);
        let mut inside = self.rest().chars();
        let (first, second) = (inside.next(), inside.next());
        if first != Some('\\') && second != Some('\'') {
            self.take_while(is_name);
            return None;
        }
        // The character itself may be a quote, so the closing one is looked for behind it.
        let skip = if first == Some('\\') { 2 } else { first.map_or(0, char::len_utf8) };
        self.take(skip.min(self.rest().len()));
        self.until("'");
        Some(Kind::Literal)
    }
}

fn is_start(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

fn is_name(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Bytes of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Bytes before the content of a raw string, and how many hashes close it.
fn raw_string(text: &str) -> Option<(usize, usize)> {
    let prefix = ["r", "br", "cr"]
        .into_iter()
        .find(|prefix| text.strip_prefix(prefix).is_some_and(|rest| rest.trim_start_matches('#').starts_with('"')))?;
    let hashes = text[prefix.len()..].bytes().take_while(|b| *b == b'#').count();
    Some((prefix.len() + hashes + 1, hashes))
}

#[cfg(test)]
mod tests {
    use super::{Kind, code, tokens};

    fn names(text: &str) -> Vec<&str> {
        let name = |kind| if let Kind::Name(name) = kind { Some(name) } else { None };
        code(text).into_iter().filter_map(|token| name(token.kind)).collect()
    }

    #[test]
    fn names_in_strings_and_comments_are_no_code() {
        let text = "a /* b /* c */ d */ \"e \\\" f\" r#\"g \" h\"# b\"i\" // j\nk";
        assert_eq!(names(text), ["a", "k"]);
    }

    #[test]
    fn characters_are_literals_and_lifetimes_are_nothing() {
        assert_eq!(
            names("x: &'static str = 'y'; b'z'; '\\''; '\"'; fn f<'a>(v: &'a T) {}"),
            ["x", "str", "fn", "f", "v", "T"]
        );
    }

    #[test]
    fn raw_names_lose_their_prefix_and_paths_their_colons() {
        assert_eq!(names("r#type r_x b"), ["type", "r_x", "b"]);
        let kinds: Vec<Kind<'_>> = code("a::b:c").into_iter().map(|token| token.kind).collect();
        assert_eq!(kinds, [Kind::Name("a"), Kind::PathSep, Kind::Name("b"), Kind::Mark(':'), Kind::Name("c")]);
    }

    #[test]
    fn every_token_knows_its_line() {
        let lines: Vec<usize> = tokens("a\n\"b\nc\" d\n// e\nf").into_iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn text_that_ends_too_early_is_read_to_its_end() {
        for text in ["\"a", "'", "'\\", "/* a", "r#\"a", "r#", "\"\\"] {
            let _ = tokens(text);
        }
    }
}
