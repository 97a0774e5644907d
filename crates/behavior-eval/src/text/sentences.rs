//! A response taken apart: sentences, their citations, and the clauses that groups of citations belong to.
//!
//! ```text
//! The river of Oz is Ozo. [doc-2] [doc-8] It is long.
//! |------------- sentence --------------||- sentence-|
//!
//! Sources disagree: Ozo [doc-2] [doc-8] or Ozi [doc-5].
//! |------ clause ------|               |clause|
//! ```
//!
//! A sentence ends at a line break, and after `.`, `!`, `?` or `…` with the quotes and brackets that close behind them,
//! when white space, a citation or the end follows. Citations that directly follow belong to the sentence before them. A
//! full stop ends no sentence when the text goes on with a small letter, or when it stands after an initial or a common
//! abbreviation and the text goes on.
//!
//! A citation is a pair of square brackets around the id of a chunk. A text without white space and with at least one letter
//! or digit passes for an id, so that an invented one is seen and judged; `[a, b]` cites twice, `[a](...)` is a link.
//!
//! **Invariant:** the response's text at a citation's span is the id that it cites.

use std::ops::Range;

use super::words::words;
use crate::suite::Prompt;

/// One id between brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Citation {
    pub chunk_id: String,
    /// Bytes of the id in the response.
    pub span: Range<usize>,
    /// Bytes of the clause that it supports: what its sentence says before its group of citations and after the group
    /// before.
    pub clause: Range<usize>,
}

/// One sentence with its citations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// Its bytes in the response, citations included.
    pub span: Range<usize>,
    /// Its text without its citations.
    pub text: String,
    /// Its citations, in order.
    pub citations: Vec<Citation>,
}

/// The sentences of a response to a prompt.
///
/// ```
/// use behavior_eval::suite::Prompt;
/// use behavior_eval::text::sentences;
/// # let prompt = Prompt { id: "p".into(), label: None, system: String::new(), user: String::new(),
/// #     question: String::new(), context: vec![], relevant: None, gold_answer: None, chunks: vec![] };
/// let found = sentences("The river is Ozo. [doc-2] [doc-8] It is 3.5 km long.", &prompt);
/// assert_eq!(found.len(), 2);
/// assert_eq!(found[0].text, "The river is Ozo.");
/// assert_eq!(found[0].citations.len(), 2);
/// ```
pub fn sentences(response: &str, prompt: &Prompt) -> Vec<Sentence> {
    let brackets = brackets(response, prompt);
    let mut sentences = Vec::new();
    let mut start = 0;
    let mut coming = brackets.as_slice();
    while start < response.len() {
        let end = sentence_end(response, start, coming);
        let here = coming.iter().take_while(|bracket| bracket.span.start < end).count();
        let (inside, after) = coming.split_at(here);
        coming = after;
        let sentence = sentence(response, start..end, inside);
        if !sentence.text.is_empty() || !sentence.citations.is_empty() {
            sentences.push(sentence);
        }
        start = end;
    }
    sentences
}

/// The sentences of a text without citations, without the white space around them.
///
/// ```
/// use behavior_eval::text::plain_sentences;
/// assert!(plain_sentences("Dr. Ozo came. It is 3.5 km long!").eq(["Dr. Ozo came.", "It is 3.5 km long!"]));
/// ```
pub fn plain_sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let from = start;
        start = sentence_end(text, from, &[]);
        (from < text.len()).then(|| text[from..start].trim())
    })
}

/// A pair of brackets that cites.
struct Bracket {
    span: Range<usize>,
    /// Where the ids are.
    ids: Vec<Range<usize>>,
}

/// All brackets that cite, in order.
fn brackets(response: &str, prompt: &Prompt) -> Vec<Bracket> {
    let mut found = Vec::new();
    let mut open = None;
    for (at, c) in response.char_indices() {
        match c {
            '[' => open = Some(at),
            '\n' => open = None,
            ']' => {
                let Some(start) = open.take() else { continue };
                if response[at + 1..].starts_with('(') {
                    continue;
                }
                let ids = cited(response, start + 1..at, prompt);
                if !ids.is_empty() {
                    found.push(Bracket { span: start..at + 1, ids });
                }
            }
            _ => {}
        }
    }
    found
}

/// The ids between a pair of brackets, none when it is no citation.
fn cited(response: &str, inside: Range<usize>, prompt: &Prompt) -> Vec<Range<usize>> {
    let whole = trimmed(response, inside.clone());
    if prompt.chunk(&response[whole.clone()]).is_some() {
        return vec![whole];
    }
    let mut ids = Vec::new();
    let mut start = inside.start;
    for part in response[inside].split([',', ';']) {
        let id = trimmed(response, start..start + part.len());
        start += part.len() + 1;
        let text = &response[id.clone()];
        let may_be_an_id = text.contains(char::is_alphanumeric) && !text.contains(char::is_whitespace);
        if !may_be_an_id && prompt.chunk(text).is_none() {
            return Vec::new();
        }
        ids.push(id);
    }
    ids
}

/// The range without white space at its ends.
fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let start = range.start + (part.len() - part.trim_start().len());
    start..start + part.trim().len()
}

/// Where the sentence that begins at `start` ends, white space behind it included.
fn sentence_end(response: &str, start: usize, brackets: &[Bracket]) -> usize {
    let mut skip = brackets.iter().peekable();
    let mut chars = response[start..].char_indices().map(|(at, c)| (start + at, c)).peekable();
    while let Some((at, c)) = chars.next() {
        // A full stop between the brackets of a citation ends no sentence.
        while skip.next_if(|bracket| bracket.span.end <= at).is_some() {}
        if skip.peek().is_some_and(|bracket| bracket.span.contains(&at)) {
            continue;
        }
        if c == '\n' {
            return after_citations(response, at + 1, brackets, true);
        }
        if !matches!(c, '.' | '!' | '?' | '…' | '。' | '！' | '？') {
            continue;
        }
        let mut end = at + c.len_utf8();
        while let Some((next, closing)) =
            chars.next_if(|&(_, c)| matches!(c, '.' | '!' | '?' | '…' | '"' | '\'' | '”' | '’' | ')' | '»' | '*'))
        {
            end = next + closing.len_utf8();
        }
        let Some(follows) = response[end..].chars().next() else { return response.len() };
        let behind = brackets.iter().find(|bracket| bracket.span.start >= end);
        let is_cited = behind.is_some_and(|bracket| response[end..bracket.span.start].trim().is_empty());
        if c.is_ascii() && !follows.is_whitespace() && !is_cited {
            continue;
        }
        let end = after_citations(response, end, brackets, false);
        let next = response[end..].chars().next();
        let is_short = c == '.' && !is_cited && abbreviates(&response[start..at]);
        let goes_on = next.is_some_and(|next| next.is_lowercase() || is_short);
        if next.is_none() || !goes_on || response[..end].ends_with('\n') {
            return end;
        }
    }
    response.len()
}

/// The end of the white space and the citations that follow `at`; a line break ends the search.
fn after_citations(response: &str, mut at: usize, brackets: &[Bracket], new_line: bool) -> usize {
    if new_line {
        return at;
    }
    loop {
        let rest = &response[at..];
        let space = rest.len() - rest.trim_start_matches(|c: char| c.is_whitespace() && c != '\n').len();
        let next = at + space;
        match brackets.iter().find(|bracket| bracket.span.start == next) {
            Some(bracket) => at = bracket.span.end,
            // A full stop behind the citations belongs to them as well.
            None if space == 0 && rest.starts_with('.') => at += 1,
            None if response[next..].starts_with('\n') => return next + 1,
            None => return next,
        }
    }
}

/// Whether a full stop after this text may belong to an abbreviation or an initial.
fn abbreviates(before: &str) -> bool {
    const COMMON: [&str; 24] = [
        "mr", "mrs", "ms", "dr", "prof", "st", "mt", "ft", "no", "nr", "vs", "etc", "fig", "eq", "ca", "cf", "approx",
        "inc", "ltd", "co", "corp", "e.g", "i.e", "al",
    ];
    let word = before.rsplit(|c: char| c.is_whitespace() || matches!(c, '(' | '[' | '"' | '“')).next().unwrap_or("");
    let initial = word.chars().count() == 1 && word.chars().all(char::is_uppercase);
    initial || COMMON.iter().any(|common| word.eq_ignore_ascii_case(common))
}

/// The sentence of this range.
fn sentence(response: &str, range: Range<usize>, brackets: &[Bracket]) -> Sentence {
    let mut text = String::new();
    let mut citations = Vec::new();
    let mut from = range.start;
    let mut clause = range.start..range.start;
    for bracket in brackets {
        let between = &response[from..bracket.span.start];
        text.push_str(between);
        if !joins(between) {
            clause = trimmed(response, from..bracket.span.start);
        }
        for id in &bracket.ids {
            let chunk_id = response[id.clone()].to_owned();
            citations.push(Citation { chunk_id, span: id.clone(), clause: clause.clone() });
        }
        from = bracket.span.end;
    }
    text.push_str(&response[from..range.end]);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    Sentence { span: trimmed(response, range), text, citations }
}

/// Whether text between two citations leaves them one group.
fn joins(between: &str) -> bool {
    words(between).iter().all(|word| matches!(word.as_str(), "and" | "also"))
}
