//! Rewrites the source of a template, where the engine's syntax or operators differ from Jinja2's.
//!
//! | Jinja2 | written for the engine as |
//! |---|---|
//! | `a ~ b`, `a % b`, `a // b`, `a / b`, `a + b` | `(a)|__concat(b)` and so on: filters that compute as Python does |
//! | `a < b`, `a in b`, `a not in b` (one operator) | `(a)|__lt(b)`, `(a)|__in(b)`, ... |
//! | `for x in e` | `for x in (e)|__iter` |
//! | `generation`, `endgeneration` | `with`, `endwith` |
//! | `'a' 'b'` | `'ab'` |
//! | a macro that reads `varargs` | one more parameter; calls gather the arguments beyond the others in it |
//! | carriage returns | line feeds |
//!
//! **Invariant:** no line feed is added or lost after the ends of lines are unified, so that errors name the right line. A
//! tag that this module cannot read stays as it is: the engine says what is wrong with it.

use std::collections::BTreeMap;

/// Deepest nesting of brackets that is rewritten; the engine's parser refuses deeper ones.
const MAX_DEPTH: usize = 100;

/// The source as the engine is to read it.
pub(super) fn rewrite(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let pieces = split(&source);
    let mut out = String::with_capacity(source.len() + source.len() / 4);
    let writer = Writer { macros: macros_with_varargs(&pieces) };
    for piece in &pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Tag { open, items, rest, close } => {
                out.push_str(open);
                if open.starts_with("{%") {
                    writer.statement(items, &mut out)
                } else {
                    writer.expression(items, &mut out)
                }
                out.push_str(rest);
                out.push_str(close);
            }
        }
    }
    out
}

/// Text that stays, or a tag `{{ ... }}` or `{% ... %}`.
enum Piece<'a> {
    Text(&'a str),
    Tag { open: &'a str, items: Vec<Item<'a>>, rest: &'a str, close: &'a str },
}

/// A token with the white space before it.
#[derive(Clone)]
enum Item<'a> {
    Token { space: &'a str, text: String, kind: Kind },
    Group { space: &'a str, open: char, items: Vec<Item<'a>>, rest: &'a str, close: char },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    Number,
    Text,
    Operator,
}

impl Item<'_> {
    fn is(&self, want: &str) -> bool {
        matches!(self, Item::Token { text, kind: Kind::Name | Kind::Operator, .. } if text == want)
    }
}

/// The pieces of a template.
fn split(source: &str) -> Vec<Piece<'_>> {
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
            match (kind, items.last_mut()) {
                // White space between the two goes along with its line feeds.
                (Kind::Text, Some(Item::Token { text: before, kind: Kind::Text, .. })) => {
                    *before = format!("{}{}", joined(before, text), space);
                }
                _ => items.push(Item::Token { space, text: text.to_owned(), kind }),
            }
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

/// Two literals side by side as one.
fn joined(first: &str, second: &str) -> String {
    let first = first.trim_end();
    let mark = &first[..1];
    let mut body = second[1..second.len() - 1].to_owned();
    if !second.starts_with(mark) {
        body = body.replace(mark, &format!("\\{mark}"));
    }
    format!("{}{body}{mark}", &first[..first.len() - 1])
}

/// Names of the macros whose body reads `varargs`, with the number of their parameters.
fn macros_with_varargs(pieces: &[Piece<'_>]) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mut current = None;
    for piece in pieces {
        let Piece::Tag { open, items, .. } = piece else { continue };
        let head = if open.starts_with("{%") { items.first() } else { None };
        match (head, items.get(1), items.get(2)) {
            (Some(head), Some(Item::Token { text, .. }), Some(Item::Group { items, .. })) if head.is("macro") => {
                let n = arguments(items).iter().filter(|argument| !argument.is_empty()).count();
                current = Some((text.clone(), n));
            }
            (Some(head), ..) if head.is("endmacro") => current = None,
            _ => {
                if let (Some((name, n)), true) = (&current, mentions(items, "varargs")) {
                    found.insert(name.clone(), *n);
                }
            }
        }
    }
    found
}

fn mentions(items: &[Item<'_>], name: &str) -> bool {
    items.iter().any(|item| match item {
        Item::Group { items, .. } => mentions(items, name),
        token => token.is(name),
    })
}

fn arguments<'i, 'a>(items: &'i [Item<'a>]) -> Vec<&'i [Item<'a>]> {
    items.split(|item| item.is(",")).collect()
}

/// Operators of equal rank, each with the filter that takes its place.
type Rank = &'static [(&'static str, Option<&'static str>)];
/// Weakest first; all of them group to the left.
const RANKS: [Rank; 3] = [
    &[("+", Some("__add")), ("-", None)],
    &[("~", Some("__concat"))],
    &[("*", None), ("/", Some("__div")), ("//", Some("__floordiv")), ("%", Some("__mod"))],
];
const COMPARISONS: Rank = &[
    ("==", None),
    ("!=", None),
    ("<", Some("__lt")),
    ("<=", Some("__le")),
    (">", Some("__gt")),
    (">=", Some("__ge")),
    ("in", Some("__in")),
];

struct Writer {
    macros: BTreeMap<String, usize>,
}

impl Writer {
    fn statement(&self, items: &[Item<'_>], out: &mut String) {
        let Some((Item::Token { space, text, kind: Kind::Name }, tail)) = items.split_first() else {
            return self.plain(items, out);
        };
        out.push_str(space);
        out.push_str(match text.as_str() {
            "generation" => "with",
            "endgeneration" => "endwith",
            other => other,
        });
        match text.as_str() {
            "for" => self.head_of_loop(tail, out),
            "macro" => self.head_of_macro(tail, out),
            _ => self.expression(tail, out),
        }
    }

    fn head_of_loop(&self, items: &[Item<'_>], out: &mut String) {
        let Some(start) = items.iter().position(|item| item.is("in")) else { return self.plain(items, out) };
        self.plain(&items[..=start], out);
        let items = &items[start + 1..];
        let end = items.iter().position(|item| item.is("if") || item.is("recursive")).unwrap_or(items.len());
        out.push_str(" (");
        self.expression(&items[..end], out);
        out.push_str(")|__iter");
        self.expression(&items[end..], out);
    }

    fn head_of_macro(&self, items: &[Item<'_>], out: &mut String) {
        match items {
            [Item::Token { space, text, .. }, Item::Group { items: parameters, rest, .. }]
                if self.macros.contains_key(text) =>
            {
                out.push_str(space);
                out.push_str(text);
                out.push('(');
                self.expression(parameters, out);
                let comma = parameters.last().is_some_and(|last| !last.is(","));
                out.push_str(if comma { ", varargs=[]" } else { " varargs=[]" });
                out.push_str(rest);
                out.push(')');
            }
            _ => self.plain(items, out),
        }
    }

    /// An expression, or several between words and commas.
    fn expression(&self, items: &[Item<'_>], out: &mut String) {
        let mut start = 0;
        for i in 0..items.len() {
            if separates(items, i) {
                self.comparison(&items[start..i], out);
                self.plain(&items[i..=i], out);
                start = i + 1;
            }
        }
        self.comparison(&items[start..], out);
    }

    fn comparison(&self, items: &[Item<'_>], out: &mut String) {
        let operators: Vec<usize> = (0..items.len()).filter(|&i| compares(items, i)).collect();
        let filter =
            |at: usize| COMPARISONS.iter().find(|(name, _)| items[at].is(name)).and_then(|(_, filter)| *filter);
        if let [at] = operators[..]
            && let Some(filter) = filter(at)
        {
            let negated = at > 0 && items[at - 1].is("not");
            let (left, right) = (&items[..at - usize::from(negated)], &items[at + 1..]);
            if !left.is_empty() && !right.is_empty() {
                let filter = if negated { "__not_in" } else { filter };
                out.push_str(" (");
                self.chain(0, left, out);
                out.push_str(&format!(")|{filter}("));
                self.chain(0, right, out);
                return out.push(')');
            }
        }
        let mut start = 0;
        for at in operators {
            let first = at - usize::from(at > start && items[at - 1].is("not"));
            self.chain(0, &items[start..first], out);
            self.plain(&items[first..=at], out);
            start = at + 1;
        }
        self.chain(0, &items[start..], out);
    }

    /// A chain of operators of one rank, folded from the left.
    fn chain(&self, rank: usize, items: &[Item<'_>], out: &mut String) {
        let Some(operators) = RANKS.get(rank) else { return self.plain(items, out) };
        let find = |i: usize| {
            operators.iter().find(|(name, _)| items[i].is(name)).filter(|_| i > 0 && ends_operand(&items[i - 1]))
        };
        let found: Vec<(usize, Option<&str>)> =
            (0..items.len()).filter_map(|i| find(i).map(|(_, filter)| (i, *filter))).collect();
        let mut ends = found.iter().map(|(at, _)| *at).skip(1).chain([items.len()]);
        let first = found.first().map_or(items.len(), |(at, _)| *at);
        let mut text = String::new();
        self.chain(rank + 1, &items[..first], &mut text);
        let mut filtered = false;
        for (at, filter) in &found {
            let right = &items[at + 1..ends.next().unwrap_or(items.len())];
            match filter {
                Some(filter) if !right.is_empty() => {
                    if !filtered {
                        text = format!(" ({text})");
                    }
                    let tuple = *filter == "__mod"
                        && matches!(right, [Item::Group { open: '(', items, .. }] if items.iter().any(|i| i.is(",")));
                    text.push_str(&format!("|{filter}{}(", if tuple { "_tuple" } else { "" }));
                    self.chain(rank + 1, right, &mut text);
                    text.push(')');
                    filtered = true;
                }
                _ => {
                    self.plain(&items[*at..=*at], &mut text);
                    self.chain(rank + 1, right, &mut text);
                    filtered = false;
                }
            }
        }
        out.push_str(&text);
    }

    /// Items as they are, except for the inside of brackets.
    fn plain(&self, items: &[Item<'_>], out: &mut String) {
        for (i, item) in items.iter().enumerate() {
            match item {
                Item::Token { space, text, kind } => {
                    out.push_str(space);
                    let sign = text == "+"
                        && *kind == Kind::Operator
                        && (i == 0 || !ends_operand(&items[i - 1]))
                        && items.len() > 1;
                    out.push_str(if sign { "" } else { text });
                }
                Item::Group { space, open, items: inner, rest, close } => {
                    out.push_str(space);
                    out.push(*open);
                    let called = i.checked_sub(1).and_then(|at| match &items[at] {
                        Item::Token { text, kind: Kind::Name, .. } if *open == '(' => self.macros.get(text),
                        _ => None,
                    });
                    match called {
                        Some(n) => self.call(*n, inner, out),
                        None => self.expression(inner, out),
                    }
                    out.push_str(rest);
                    out.push(*close);
                }
            }
        }
    }

    /// The arguments of a macro with `varargs`: those beyond the first `n` become one list.
    fn call(&self, n: usize, items: &[Item<'_>], out: &mut String) {
        let all = arguments(items);
        let named = |argument: &&&[Item<'_>]| {
            argument.get(1).is_some_and(|item| item.is("="))
                || argument.first().is_some_and(|item| item.is("*") || item.is("**"))
        };
        let positional: Vec<_> = all.iter().filter(|a| !a.is_empty() && !named(a)).collect();
        if positional.len() <= n {
            return self.expression(items, out);
        }
        for argument in &positional[..n] {
            self.expression(argument, out);
            out.push_str(", ");
        }
        out.push_str("varargs=[");
        for argument in &positional[n..] {
            self.expression(argument, out);
            out.push_str(", ");
        }
        out.push(']');
        for argument in all.iter().filter(named) {
            out.push_str(", ");
            self.expression(argument, out);
        }
    }
}

/// Whether the item stands after `is` or `is not`, where a test's name is.
fn names_a_test(items: &[Item<'_>], i: usize) -> bool {
    i > 0 && (items[i - 1].is("is") || (i > 1 && items[i - 1].is("not") && items[i - 2].is("is")))
}

fn after_dot_or_pipe(items: &[Item<'_>], i: usize) -> bool {
    i > 0 && (items[i - 1].is(".") || items[i - 1].is("|"))
}

fn separates(items: &[Item<'_>], i: usize) -> bool {
    let item = &items[i];
    let word = ["and", "or", "if", "else"].iter().any(|word| item.is(word));
    let not = item.is("not") && !items.get(i + 1).is_some_and(|next| next.is("in"));
    let mark = [",", ":", "="].iter().any(|mark| item.is(mark));
    mark || ((word || not) && !names_a_test(items, i) && !after_dot_or_pipe(items, i))
}

fn compares(items: &[Item<'_>], i: usize) -> bool {
    COMPARISONS.iter().any(|(name, _)| items[i].is(name)) && !names_a_test(items, i) && !after_dot_or_pipe(items, i)
}

/// Whether an operator after the item has it as its left operand, so that it is no sign.
fn ends_operand(item: &Item<'_>) -> bool {
    match item {
        Item::Group { .. } => true,
        Item::Token { text, kind, .. } => match kind {
            Kind::Operator => false,
            Kind::Name => !["and", "or", "not", "in", "is", "if", "else"].contains(&text.as_str()),
            Kind::Number | Kind::Text => true,
        },
    }
}
