//! Keeps content apart from markup while a template renders both into one text.
//!
//! ```text
//!   content   a<|user|>b   ──disguise──►  aX|user|Yb  ──template──►  …<|user|>aX|user|Yb…  ──lift──►  text, places of X, Y
//! ```
//!
//! In content, every character that can begin or end a control token is replaced by a stand-in: a private-use character
//! that occurs neither in the template nor in the content. A stand-in is one character like the one it stands for, so
//! that slices, strips and joins of the template work as before. After the rendering the stand-ins become what they
//! stand for, and their places are kept: the tokenizer lets no control token cover one of them.
//!
//! A short content such as the name `think` could complete the template's own `<` and `>`. A content that lies within
//! the text of a control token therefore has a stand-in too, unless the template itself names it (it may compare with
//! it, as in `item.type == 'text'`).
//!
//! **Invariant:** no control token of the rendered prompt contains a character of content at its begin or end.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};

use super::literals::{self, Names};
use crate::text::prompt::ChatPrompt;

/// Roles that templates build markers from, such as `<|{{ role }}|>`.
const ROLES: [&str; 9] =
    ["system", "user", "assistant", "tool", "function", "observation", "environment", "ipython", "model"];
/// The first character of the private-use planes.
const FIRST_PRIVATE: char = '\u{f0000}';

/// The control tokens of a model, as far as they bear on the content of its template.
#[derive(Debug)]
pub(super) struct Markers {
    /// The names in the template.
    names: Names,
    /// The private-use characters of the template, of the marks and of their stand-ins.
    taken: BTreeSet<char>,
    /// The template with stand-ins in the literals that it searches content for.
    searching: String,
    /// Control tokens within these literals.
    searched: Vec<String>,
    /// The characters that begin or end a control token, and their stand-ins.
    stand_ins: BTreeMap<char, char>,
    /// The texts of all control tokens in lower case, apart.
    texts: String,
    /// Bytes of the longest one.
    longest: usize,
}

impl Markers {
    /// The control tokens `texts` under the template `source`. `None` when they begin and end with more different
    /// characters than there are stand-ins.
    pub(super) fn new<'a>(source: &str, texts: impl Iterator<Item = &'a str>) -> Option<Self> {
        let texts: Vec<&str> = texts.filter(|text| !text.is_empty()).collect();
        // Letters and digits are left alone where a token has another character: they are too many, and have two cases.
        let is_plain = |c: &char| c.is_alphanumeric() || c.is_whitespace();
        let ends = |text: &str| {
            let mut marks = text.chars().filter(|c| !is_plain(c));
            match (marks.next(), marks.next_back()) {
                (Some(first), last) => [first, last.unwrap_or(first)],
                (None, _) => [text.chars().next().unwrap_or(' '), text.chars().next_back().unwrap_or(' ')],
            }
        };
        let marks: BTreeSet<char> = texts.iter().flat_map(|text| ends(text)).collect();
        let mut taken: BTreeSet<char> = source.chars().chain(marks.iter().copied()).filter(is_private).collect();
        let mut free = (FIRST_PRIVATE..=char::MAX).filter(|c| is_private(c) && !taken.contains(c));
        let stand_ins = marks.into_iter().map(|mark| Some((mark, free.next()?))).collect::<Option<BTreeMap<_, _>>>()?;
        taken.extend(stand_ins.values());

        let (mut searching, mut searched, mut behind) = (String::new(), Vec::new(), 0);
        for place in literals::searched(source) {
            let literal = &source[place.clone()];
            searched.extend(texts.iter().filter(|text| literal.contains(**text)).map(|text| (*text).to_owned()));
            searching.push_str(&source[behind..place.start]);
            searching.extend(literal.chars().map(|c| stand_ins.get(&c).copied().unwrap_or(c)));
            behind = place.end;
        }
        searching.push_str(&source[behind..]);
        searched.sort_unstable_by_key(|text| std::cmp::Reverse(text.len()));
        searched.dedup();
        let lower: Vec<String> = texts.iter().map(|text| text.to_lowercase()).collect();
        let longest = lower.iter().map(String::len).max().unwrap_or(0);
        let (names, texts) = (Names::of(source), lower.join("\0"));
        Some(Self { names, taken, searching, searched, stand_ins, texts, longest })
    }

    /// The template that finds in disguised content what it would find in plain content.
    pub(super) fn searching(&self) -> &str {
        &self.searching
    }

    /// Whether a content could stand in the middle of a control token.
    fn may_be_inside(&self, text: &str) -> bool {
        let text = text.trim();
        text.len() <= self.longest && !text.is_empty() && self.texts.contains(&text.to_lowercase())
    }

    /// Whether the template has the text as a literal.
    fn has_literal(&self, text: &str) -> bool {
        self.names.literals.contains(text)
    }

    /// Whether the template looks up this key: `.key`, or a literal.
    fn has_key(&self, key: &str) -> bool {
        self.has_literal(key) || self.names.attributes.contains(key)
    }
}

fn is_private(c: &char) -> bool {
    matches!(*c, '\u{f0000}'..='\u{ffffd}' | '\u{100000}'..='\u{10fffd}')
}

/// The content of one rendering under its stand-ins.
pub(super) struct Disguise<'a> {
    markers: &'a Markers,
    /// Leave in the words of the assistant what the template searches for.
    trusts_assistant: bool,
    /// Private-use characters of the content.
    taken: BTreeSet<char>,
    /// The next character to try as a stand-in.
    next: Option<char>,
    /// Stand-ins beside those of the markers.
    more: BTreeMap<char, char>,
    is_used: bool,
    /// There were not enough stand-ins.
    is_short: bool,
}

impl<'a> Disguise<'a> {
    pub(super) fn new(markers: &'a Markers, trusts_assistant: bool, content: [&Vec<Json>; 3]) -> Self {
        let mut taken = markers.taken.clone();
        content.into_iter().flatten().for_each(|value| private_characters(value, &mut taken));
        let (next, more) = (Some(FIRST_PRIVATE), BTreeMap::new());
        Self { markers, trusts_assistant, taken, next, more, is_used: false, is_short: false }
    }

    /// Whether a character of the content has a stand-in.
    pub(super) fn is_used(&self) -> bool {
        self.is_used
    }

    /// Whether the content has so many private-use characters that stand-ins are missing.
    pub(super) fn is_short(&self) -> bool {
        self.is_short
    }

    /// Messages or tools under stand-ins.
    pub(super) fn put_on(&mut self, values: &[Json]) -> Vec<Json> {
        values
            .iter()
            .map(|value| {
                let is_answer = value.get("role").and_then(Json::as_str) == Some("assistant");
                self.value("", value, is_answer && self.trusts_assistant)
            })
            .collect()
    }

    fn value(&mut self, key: &str, value: &Json, is_trusted: bool) -> Json {
        match value {
            Json::String(text) if key == "role" && ROLES.contains(&text.as_str()) => value.clone(),
            Json::String(text) if is_trusted => Json::String(self.answer(text)),
            Json::String(text) => {
                let is_named = self.markers.has_literal(text);
                Json::String(self.text(text, is_named))
            }
            Json::Array(items) => items.iter().map(|item| self.value(key, item, is_trusted)).collect(),
            Json::Object(map) => {
                let mut disguised = Map::new();
                for (key, item) in map {
                    let is_named = self.markers.has_key(key);
                    disguised.insert(self.text(key, is_named), self.value(key, item, is_trusted));
                }
                Json::Object(disguised)
            }
            other => other.clone(),
        }
    }

    /// A text of the assistant: what the template searches for stays.
    fn answer(&mut self, text: &str) -> String {
        let markers = self.markers;
        let mut out = String::new();
        let mut rest = text;
        let first = |rest: &str| {
            let hits = markers.searched.iter().filter_map(|marker| Some((rest.find(marker.as_str())?, marker.len())));
            hits.min_by_key(|&(at, len)| (at, std::cmp::Reverse(len)))
        };
        while let Some((at, len)) = first(rest) {
            out.push_str(&self.text(&rest[..at], true));
            out.push_str(&rest[at..at + len]);
            rest = &rest[at + len..];
        }
        out.push_str(&self.text(rest, markers.has_literal(text)));
        out
    }

    fn text(&mut self, text: &str, is_named: bool) -> String {
        let markers = self.markers;
        let is_stand_in = |c: char| is_private(&c) && markers.stand_ins.values().any(|&by| by == c);
        let whole = !is_named && markers.may_be_inside(text);
        let mut waits_for_inside = whole;
        text.chars()
            .map(|c| {
                let inside = waits_for_inside && !c.is_whitespace();
                waits_for_inside &= !inside;
                if inside || is_stand_in(c) || markers.stand_ins.contains_key(&c) { self.stand_in(c) } else { c }
            })
            .collect()
    }

    fn stand_in(&mut self, c: char) -> char {
        self.is_used = true;
        if let Some(&by) = self.markers.stand_ins.get(&c).or_else(|| self.more.get(&c)) {
            return by;
        }
        while let Some(candidate) = self.next {
            self.next = (candidate..=char::MAX).nth(1);
            if is_private(&candidate) && !self.taken.contains(&candidate) {
                self.more.insert(c, candidate);
                return candidate;
            }
        }
        self.is_short = true;
        c
    }

    /// The rendered text without stand-ins, with their places: `Ok` when it is the `plain` rendering.
    ///
    /// A template that changed the case of content shows it at the stand-ins only; the text is the plain one then, too.
    pub(super) fn take_off(&self, rendered: &str, plain: &str) -> Result<ChatPrompt, ChatPrompt> {
        let stand_ins = self.markers.stand_ins.iter().chain(&self.more);
        let back: BTreeMap<char, char> = stand_ins.map(|(&of, &by)| (by, of)).collect();
        // The template may have written stand-ins as escapes, but content may hold such escapes, too.
        aligned(lift(rendered, &back), plain).or_else(|_| aligned(lift(&unescape(rendered, &back), &back), plain))
    }
}

/// The places of a prompt in the `plain` text, where the two differ in no other place.
fn aligned(prompt: ChatPrompt, plain: &str) -> Result<ChatPrompt, ChatPrompt> {
    if prompt.text() == plain {
        return Ok(prompt);
    }
    let mut ahead = prompt.words().iter().copied().peekable();
    let (mut chars, mut words) = (plain.char_indices(), Vec::new());
    for (at, c) in prompt.text().char_indices() {
        let is_word = ahead.next_if_eq(&at).is_some();
        match chars.next() {
            Some((plain_at, _)) if is_word => words.push(plain_at),
            Some((_, plain_c)) if plain_c == c => {}
            _ => return Err(prompt),
        }
    }
    if chars.next().is_none() { Ok(ChatPrompt::new(plain.to_owned(), words)) } else { Err(prompt) }
}

/// The text that stand-ins stand for, and their places.
fn lift(rendered: &str, back: &BTreeMap<char, char>) -> ChatPrompt {
    let (mut text, mut words) = (String::with_capacity(rendered.len()), Vec::new());
    for c in rendered.chars() {
        let of = if is_private(&c) { back.get(&c).copied() } else { None };
        if of.is_some() {
            words.push(text.len());
        }
        text.push(of.unwrap_or(c));
    }
    ChatPrompt::new(text, words)
}

/// Stand-ins that the template wrote as escapes, for JSON in ASCII and for Python's spelling of strings.
fn unescape(rendered: &str, back: &BTreeMap<char, char>) -> String {
    let mut text = rendered.to_owned();
    if !["\\udb", "\\U000f", "\\U0010"].iter().any(|begin| text.contains(begin)) {
        return text;
    }
    for &by in back.keys() {
        let json: String = by.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect();
        let python = format!("\\U{:08x}", u32::from(by));
        let by = by.to_string();
        text = text.replace(&json, &by).replace(&python, &by);
    }
    text
}

fn private_characters(value: &Json, found: &mut BTreeSet<char>) {
    match value {
        Json::String(text) => found.extend(text.chars().filter(is_private)),
        Json::Array(items) => items.iter().for_each(|item| private_characters(item, found)),
        Json::Object(map) => map.iter().for_each(|(key, item)| {
            found.extend(key.chars().filter(is_private));
            private_characters(item, found);
        }),
        _ => {}
    }
}
