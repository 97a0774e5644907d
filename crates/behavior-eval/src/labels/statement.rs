//! The answer that a chunk gives to a question.
//!
//! A sentence bears on the question when it has every content word of the question (equal stems), and has each phrase
//! that an article or a preposition opens in the question as consecutive words. Its answer is what it says beyond the
//! question, looked for around the shortest stretch that holds all those words, the span:
//!
//! ```text
//! Records say | the river of Oz | is Ozo.             behind the span, after a link
//! Oz | has Ozo as its | river.                        inside the span
//! According to travellers, Ozo | is the river of Oz.  before the span, back to what separates
//! For its river, Oz | chose Ozo.                      behind the span without a link
//! ```
//!
//! **Invariant:** no list of relations, entities or turns of phrase is needed; only the words that build sentences are
//! known.

use std::collections::BTreeMap;

use super::lexicon::{PartOfSpeech, is_stop, opens_noun_phrase, part_of_speech, stem};
use crate::text::{plain_sentences, words};

/// A question taken apart.
pub(super) struct Question {
    /// Stems of its content words. A word that the question has twice, a chunk must have twice: the river of long river.
    stems: BTreeMap<String, usize>,
    /// Phrases of at least two content words that a chunk must have unbroken.
    unbroken: Vec<Vec<String>>,
    /// The phrase that names what the question is about, where it can be told.
    subject: Option<Vec<String>>,
}

/// An answer in a chunk.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Its words, in order.
    pub(super) words: Vec<String>,
    /// Whether the chunk denies it.
    pub(super) is_negated: bool,
}

/// A word of a sentence, or what stands between two.
#[derive(Clone, Debug)]
struct Token {
    word: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A comma or its like.
    Boundary,
    /// A word of the question.
    Asked,
    Word(PartOfSpeech),
}

impl Question {
    /// Takes a question apart.
    pub(super) fn new(question: &str) -> Self {
        let tokens = tokens(question, &BTreeMap::new());
        let mut phrases: Vec<(Vec<String>, bool, bool)> = Vec::new();
        let (mut open, mut opener) = (false, String::new());
        for token in &tokens {
            if token.kind == Kind::Word(PartOfSpeech::Content) {
                if !open {
                    phrases.push((Vec::new(), opens_noun_phrase(&opener), false));
                }
                if let Some((phrase, ..)) = phrases.last_mut() {
                    phrase.push(stem(&token.word).to_owned());
                }
                open = true;
            } else {
                // `Oz's river`: what owns is what the question is about.
                if let (true, "s", Some((.., owns))) = (open, token.word.as_str(), phrases.last_mut()) {
                    *owns = true;
                }
                open = false;
            }
            opener.clone_from(&token.word);
        }
        let mut stems: BTreeMap<String, usize> = BTreeMap::new();
        for stem in phrases.iter().flat_map(|(phrase, ..)| phrase) {
            *stems.entry(stem.clone()).or_default() += 1;
        }
        let owner = phrases.iter().find(|(.., owns)| *owns);
        let last = phrases.last().filter(|(_, is_noun_phrase, _)| phrases.len() > 1 && *is_noun_phrase);
        let subject = owner.or(last).map(|(phrase, ..)| phrase.clone());
        phrases.retain(|(phrase, is_noun_phrase, owns)| phrase.len() > 1 && (*is_noun_phrase || *owns));
        Self { stems, unbroken: phrases.into_iter().map(|(phrase, ..)| phrase).collect(), subject }
    }

    /// The answer that a chunk gives; `None` when it does not bear on the question.
    pub(super) fn answer(&self, chunk: &str) -> Option<Finding> {
        if self.stems.is_empty() {
            return None;
        }
        let one = plain_sentences(chunk).find_map(|sentence| self.answer_of(sentence));
        // A chunk may name its subject in one sentence and speak of it in the next.
        one.or_else(|| self.answer_of(chunk))
    }

    fn answer_of(&self, sentence: &str) -> Option<Finding> {
        let tokens = tokens(sentence, &self.stems);
        let (first, last) = self.span(&tokens)?;
        if !self.names_its_phrases(&tokens) {
            return None;
        }
        let found = behind(&tokens[last + 1..], true)
            .or_else(|| inside(&tokens[first..=last]))
            .or_else(|| before(&tokens[..first]))
            .or_else(|| behind(&tokens[last + 1..], false))?;
        let is_negated = tokens.iter().any(|token| token.kind == Kind::Word(PartOfSpeech::Negation));
        Some(Finding { words: found, is_negated })
    }

    /// First and last token of the shortest stretch that holds every stem; the first such stretch.
    fn span(&self, tokens: &[Token]) -> Option<(usize, usize)> {
        let wanted: usize = self.stems.values().sum();
        let mut latest: Vec<(&str, usize)> = Vec::new();
        let mut best: Option<(usize, usize)> = None;
        for (at, token) in tokens.iter().enumerate().filter(|(_, token)| token.kind == Kind::Asked) {
            let stem = stem(&token.word);
            latest.push((stem, at));
            let mut same = latest.iter().enumerate().filter(|(_, (seen, _))| *seen == stem).map(|(i, _)| i);
            if let (Some(oldest), n) = (same.next(), same.count() + 1)
                && self.stems.get(stem).is_none_or(|&wanted| n > wanted)
            {
                latest.remove(oldest);
            }
            if latest.len() == wanted {
                let first = latest[0].1;
                if best.is_none_or(|(a, b)| at - first < b - a) {
                    best = Some((first, at));
                }
            }
        }
        best
    }

    /// Whether every phrase that belongs together stands together, and the subject is not part of a longer name.
    fn names_its_phrases(&self, tokens: &[Token]) -> bool {
        let places = |phrase: &[String]| {
            let is_here = |window: &[Token]| window.iter().zip(phrase).all(|(token, want)| stem(&token.word) == want);
            let found = tokens.windows(phrase.len()).enumerate().filter(|(_, window)| is_here(window));
            found.map(|(at, _)| at).collect::<Vec<_>>()
        };
        if self.unbroken.iter().any(|phrase| places(phrase).is_empty()) {
            return false;
        }
        let Some(subject) = &self.subject else { return true };
        let is_longer = |at: &usize| {
            let before = |back: usize| at.checked_sub(back).map(|i| &tokens[i]);
            before(1).is_some_and(|token| token.kind == Kind::Word(PartOfSpeech::Content))
                && before(2).is_some_and(|token| opens_noun_phrase(&token.word))
        };
        let places = places(subject);
        places.is_empty() || !places.iter().all(is_longer)
    }
}

/// The answer behind a span: content words up to what separates. With `linked`, only when a link comes first.
fn behind(rest: &[Token], linked: bool) -> Option<Vec<String>> {
    let mut start = 0;
    if linked {
        let skipped = |token: &Token| matches!(token.kind, Kind::Boundary | Kind::Word(PartOfSpeech::Function));
        let link = rest.iter().position(|token| !skipped(token))?;
        if rest[link].kind != Kind::Word(PartOfSpeech::Link) {
            return None;
        }
        start = link + 1;
    }
    stretch(&rest[start..])
}

/// The answer in front of a span: content words back to what separates.
fn before(front: &[Token]) -> Option<Vec<String>> {
    let start = front.iter().rposition(|token| token.kind == Kind::Word(PartOfSpeech::Content))?;
    let run = front[..=start].iter().rev().take_while(|token| match token.kind {
        Kind::Asked | Kind::Word(PartOfSpeech::Content) => true,
        // `Port of Ozo is ...`
        Kind::Word(PartOfSpeech::Function) => matches!(token.word.as_str(), "of" | "the"),
        _ => false,
    });
    let mut words: Vec<String> = run.filter(|token| is_said(token)).map(|token| token.word.clone()).collect();
    words.reverse();
    Some(words)
}

/// The answer between the words of a span.
fn inside(span: &[Token]) -> Option<Vec<String>> {
    let content = span.iter().filter(|token| token.kind == Kind::Word(PartOfSpeech::Content));
    let words: Vec<String> = content.map(|token| token.word.clone()).collect();
    (!words.is_empty()).then_some(words)
}

/// The words said up to the first separation behind the first of them; words that report count when there are no others.
fn stretch(tokens: &[Token]) -> Option<Vec<String>> {
    for wanted in [is_said as fn(&Token) -> bool, is_reported] {
        let mut words = Vec::new();
        for token in tokens {
            if wanted(token) {
                words.push(token.word.clone());
            } else if !words.is_empty() && (token.kind == Kind::Boundary || is_stop(&token.word)) {
                break;
            }
        }
        if !words.is_empty() {
            return Some(words);
        }
    }
    None
}

/// A word of the question that stands outside the span is part of what is said: `the capital of Mexico is Mexico City`.
fn is_said(token: &Token) -> bool {
    matches!(token.kind, Kind::Asked | Kind::Word(PartOfSpeech::Content))
}

fn is_reported(token: &Token) -> bool {
    token.kind == Kind::Word(PartOfSpeech::Reporting)
}

/// Words and boundaries of a text; words with a stem of the question are marked.
fn tokens(text: &str, asked: &BTreeMap<String, usize>) -> Vec<Token> {
    let mut found = Vec::new();
    // Between two separating characters lie words without a boundary.
    for (i, part) in text.split([',', ';', ':', '.', '!', '?', '(', ')', '"', '“', '”', '–', '—', '\n']).enumerate()
    {
        if i > 0 {
            found.push(Token { word: String::new(), kind: Kind::Boundary });
        }
        for word in words(part) {
            let kind = if asked.contains_key(stem(&word)) { Kind::Asked } else { Kind::Word(part_of_speech(&word)) };
            found.push(Token { word, kind });
        }
    }
    found
}
