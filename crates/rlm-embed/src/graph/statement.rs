//! A text as the words, numbers, names and the polarity that a comparison reads.
//!
//! The roles of words are those of `behavior_eval::labels`, so that labels and vectors share one lexicon of English.

use std::collections::BTreeSet;

use behavior_eval::labels::{PartOfSpeech, part_of_speech, stem};

use super::antonyms::are_opposite;

/// Words that deny a statement, beside the negations of the lexicon.
const DENIALS: &str = "without fails fail failed unable lacks lack lacked denies denied deny false untrue incorrect wrong myth \
    nothing none neither refuses refused hardly disproved disproves refuted refutes debunked ruled mistaken mistakenly \
    contrary impossible doubtful absent ain couldn wouldn shouldn hasn haven hadn";

const NUMBER_WORDS: [&str; 21] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
];

/// A text taken apart for comparisons.
///
/// ```
/// use rlm_embed::graph::Statement;
/// let statement = Statement::new("The Orra bridge does not carry 1,200 trains.");
/// assert!(statement.is_negated() && statement.numbers().eq(["1200"]));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Statement {
    /// Content words in lower case, by first appearance.
    words: Vec<String>,
    stems: BTreeSet<String>,
    numbers: BTreeSet<String>,
    /// Names in lower case, by first appearance.
    names: Vec<String>,
    denials: usize,
}

impl Statement {
    /// Takes a text apart.
    #[must_use]
    pub fn new(text: &str) -> Statement {
        let mut statement = Statement::default();
        let tokens = tokens(text);
        tokens.iter().for_each(|token| statement.take(token));
        let opening = tokens.first().map(|token| token.to_lowercase()).unwrap_or_default();
        if statement.names.len() > 1 && statement.names[0] == opening && opens_as_noun(&opening) {
            statement.names.remove(0);
        }
        statement
    }

    /// Whether an odd number of words denies.
    #[must_use]
    pub fn is_negated(&self) -> bool {
        self.denials % 2 == 1
    }

    /// The numbers, without separators of thousands, in alphabetical order.
    pub fn numbers(&self) -> impl Iterator<Item = &str> {
        self.numbers.iter().map(String::as_str)
    }

    /// The names in lower case, in the order of the text.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Stems that both have, over the stems of the one that has fewer; 0 for a statement without content.
    #[must_use]
    pub fn overlap(&self, other: &Statement) -> f32 {
        let both = self.stems.intersection(&other.stems).count();
        let fewer = self.stems.len().min(other.stems.len());
        if fewer == 0 { 0.0 } else { both as f32 / fewer as f32 }
    }

    /// Whether both state numbers, and each states one that the other does not.
    pub(super) fn differs_in_numbers(&self, other: &Statement) -> bool {
        !self.numbers.is_subset(&other.numbers) && !other.numbers.is_subset(&self.numbers)
    }

    /// Whether a word of one, which the other lacks, is the opposite of such a word of the other.
    pub(super) fn has_opposite(&self, other: &Statement) -> bool {
        let only = |a: &Statement, b: &Statement| {
            a.words.iter().filter(|word| !b.stems.contains(stem(word))).cloned().collect::<Vec<String>>()
        };
        let (here, there) = (only(self, other), only(other, self));
        here.iter().any(|a| there.iter().any(|b| are_opposite(a, b)))
    }

    /// How the names of two statements differ.
    pub(super) fn compare_names(&self, other: &Statement) -> Names {
        let new = |a: &Statement, b: &Statement| a.names.iter().position(|name| !b.names.contains(name));
        let (Some(here), Some(there)) = (new(self, other), new(other, self)) else { return Names::Compatible };
        let shares = self.names.iter().any(|name| other.names.contains(name));
        match (here, there, shares) {
            (0, 0, _) | (_, _, false) => Names::OtherSubject,
            _ => Names::OtherValue,
        }
    }

    fn take(&mut self, token: &str) {
        let lower = token.to_lowercase();
        if let Some(number) = number(&lower) {
            self.numbers.insert(number);
            return;
        }
        let role = part_of_speech(&lower);
        if role == PartOfSpeech::Negation || DENIALS.split_ascii_whitespace().any(|denial| denial == lower) {
            self.denials += 1;
            return;
        }
        if role != PartOfSpeech::Content {
            return;
        }
        if token.chars().next().is_some_and(char::is_uppercase) && !self.names.contains(&lower) {
            self.names.push(lower.clone());
        }
        if self.stems.insert(stem(&lower).to_owned()) {
            self.words.push(lower);
        }
    }
}

/// The difference between the names of two statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// One has all names of the other.
    Compatible,
    /// They name different things first, or share no name.
    OtherSubject,
    /// They share a name and differ in another one.
    OtherValue,
}

/// Whether the first word of a text is a plural or a gerund rather than a name: beside other names its capital says nothing.
fn opens_as_noun(word: &str) -> bool {
    word.ends_with('s') || word.ends_with("ing")
}

/// A number without separators of thousands, in digits.
fn number(word: &str) -> Option<String> {
    if let Some(value) = NUMBER_WORDS.iter().position(|listed| *listed == word) {
        // `one` is a pronoun as often as a number.
        return (value != 1).then(|| value.to_string());
    }
    word.chars().next().filter(char::is_ascii_digit)?;
    let plain: String = word.chars().filter(|c| *c != ',').collect();
    Some(plain.strip_suffix(".0").unwrap_or(&plain).to_owned())
}

/// The words of a text. A comma or a point between digits belongs to the number.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let is_digit = |at: Option<usize>| at.and_then(|at| chars.get(at)).is_some_and(char::is_ascii_digit);
    let mut found = Vec::new();
    let mut word = String::new();
    for (i, &c) in chars.iter().enumerate() {
        let between_digits = matches!(c, ',' | '.') && is_digit(i.checked_sub(1)) && is_digit(Some(i + 1));
        if c.is_alphanumeric() || between_digits {
            word.push(c);
        } else if !word.is_empty() {
            found.push(std::mem::take(&mut word));
        }
    }
    found.extend((!word.is_empty()).then_some(word));
    found
}
