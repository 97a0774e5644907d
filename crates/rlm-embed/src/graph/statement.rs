//! A text as sentences, each with the words, numbers, names and the polarity that a comparison reads.
//!
//! The roles of words are those of `behavior_eval::labels`, so that labels and vectors share one lexicon of English.

use std::collections::{BTreeSet, HashSet};
use std::sync::LazyLock;

use behavior_eval::labels::{PartOfSpeech, part_of_speech, stem};
use behavior_eval::text::plain_sentences;

use super::antonyms::{are_opposite, has_opposites};

/// Words that deny a statement, beside the negations of the lexicon. A word stands here with all its forms, and not in the list of
/// opposites: two forms of one denial must cancel each other.
pub(super) const DENIALS: &str = "without fail fails failed failing failure unable lack lacks lacked lacking deny denies denied denying \
    false falsely untrue incorrect incorrectly wrong wrongly myth nothing none neither refuse refuses refused refusing refusal \
    reject rejects rejected rejecting hardly disprove disproves disproved refute refutes refuted debunked ruled mistaken mistakenly \
    contrary impossible doubtful ain couldn wouldn shouldn hasn haven hadn";

static DENYING: LazyLock<HashSet<&str>> = LazyLock::new(|| DENIALS.split_ascii_whitespace().collect());

/// Sentences of a text that are compared, and words of a sentence, so that a long text costs bounded time.
const MAX_SENTENCES: usize = 64;
const MAX_WORDS: usize = 256;

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

/// A text taken apart for comparisons: the first 256 words of each of its first 64 sentences.
///
/// ```
/// use rlm_embed::graph::Statement;
/// let statement = Statement::new("The Orra bridge is old. It does not carry 1,200 trains.");
/// assert!(statement.sentences().map(|sentence| sentence.is_negated()).eq([false, true]));
/// assert!(statement.names().eq(["orra"]));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Statement {
    sentences: Vec<Sentence>,
    names: NameList,
}

impl Statement {
    /// Takes a text apart.
    #[must_use]
    pub fn new(text: &str) -> Statement {
        let sentences: Vec<Sentence> = plain_sentences(text).map(Sentence::new).take(MAX_SENTENCES).collect();
        let mut names = NameList::default();
        sentences.iter().flat_map(|sentence| &sentence.names.ordered).for_each(|name| names.insert(name));
        Statement { sentences, names }
    }

    /// The sentences in the order of the text.
    pub fn sentences(&self) -> impl Iterator<Item = &Sentence> {
        self.sentences.iter()
    }

    /// The names in lower case, in the order of the text.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.ordered.iter().map(String::as_str)
    }

    /// How the names of two texts differ.
    pub(super) fn compare_names(&self, other: &Statement) -> Names {
        self.names.compare(&other.names)
    }

    /// The pairs of sentences of which each is the one nearest to the other, with their overlap, which is above 0.
    pub(super) fn matches<'a>(&'a self, other: &'a Statement) -> Vec<(&'a Sentence, &'a Sentence, f32)> {
        let overlaps: Vec<Vec<f32>> =
            self.sentences.iter().map(|a| other.sentences.iter().map(|b| a.overlap(b)).collect()).collect();
        let best_of_row: Vec<f32> = overlaps.iter().map(|row| row.iter().copied().fold(0.0, f32::max)).collect();
        let best_of_column = |j: usize| overlaps.iter().map(|row| row[j]).fold(0.0, f32::max);
        let mut pairs = Vec::new();
        for (j, b) in other.sentences.iter().enumerate() {
            let best = best_of_column(j);
            for (i, a) in self.sentences.iter().enumerate() {
                if best > 0.0 && overlaps[i][j] == best && best == best_of_row[i] {
                    pairs.push((a, b, best));
                }
            }
        }
        pairs
    }
}

/// A sentence taken apart.
#[derive(Clone, Debug, Default)]
pub struct Sentence {
    /// Content words in lower case, by first appearance.
    words: Vec<String>,
    stems: BTreeSet<String>,
    numbers: BTreeSet<String>,
    names: NameList,
    denials: usize,
}

impl Sentence {
    fn new(text: &str) -> Sentence {
        let mut sentence = Sentence::default();
        let mut tokens = tokens(text);
        tokens.truncate(MAX_WORDS);
        tokens.iter().for_each(|token| sentence.take(token));
        let opening = tokens.first().map(|token| token.to_lowercase()).unwrap_or_default();
        if sentence.names.ordered.len() > 1 && sentence.names.ordered[0] == opening && opens_as_noun(&opening) {
            sentence.names.remove_first();
        }
        sentence
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

    /// Stems that both have, over the stems of the one that has fewer; 0 for a sentence without content.
    #[must_use]
    pub fn overlap(&self, other: &Sentence) -> f32 {
        let both = self.stems.intersection(&other.stems).count();
        let fewer = self.stems.len().min(other.stems.len());
        if fewer == 0 { 0.0 } else { both as f32 / fewer as f32 }
    }

    /// Whether both state numbers, and each states one that the other does not.
    pub(super) fn differs_in_numbers(&self, other: &Sentence) -> bool {
        !self.numbers.is_subset(&other.numbers) && !other.numbers.is_subset(&self.numbers)
    }

    /// Whether a word of one, which the other lacks, is the opposite of such a word of the other.
    pub(super) fn has_opposite(&self, other: &Sentence) -> bool {
        let only = |a: &Sentence, b: &Sentence| -> Vec<String> {
            let stems = a.words.iter().map(|word| stem(word)).filter(|stem| has_opposites(stem));
            stems.filter(|stem| !b.stems.contains(*stem)).map(str::to_owned).collect()
        };
        let (here, there) = (only(self, other), only(other, self));
        here.iter().any(|a| there.iter().any(|b| are_opposite(a, b)))
    }

    /// How the names of two sentences differ.
    pub(super) fn compare_names(&self, other: &Sentence) -> Names {
        self.names.compare(&other.names)
    }

    fn take(&mut self, token: &str) {
        let lower = token.to_lowercase();
        if let Some(number) = number(&lower) {
            self.numbers.insert(number);
            return;
        }
        let role = part_of_speech(&lower);
        if role == PartOfSpeech::Negation || DENYING.contains(lower.as_str()) {
            self.denials += 1;
            return;
        }
        if role != PartOfSpeech::Content {
            return;
        }
        if token.chars().next().is_some_and(char::is_uppercase) {
            self.names.insert(&lower);
        }
        if self.stems.insert(stem(&lower).to_owned()) {
            self.words.push(lower);
        }
    }
}

/// The difference between the names of two texts or sentences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// One has all names of the other.
    Compatible,
    /// They name different things first, or share no name.
    OtherSubject,
    /// They share a name and differ in another one.
    OtherValue,
}

/// Distinct names in lower case.
#[derive(Clone, Debug, Default)]
struct NameList {
    /// Each name once, in the order of the text.
    ordered: Vec<String>,
    /// The same, so that a name is found in less time than the list takes.
    sorted: BTreeSet<String>,
}

impl NameList {
    fn insert(&mut self, name: &str) {
        if !self.sorted.contains(name) {
            self.sorted.insert(name.to_owned());
            self.ordered.push(name.to_owned());
        }
    }

    fn remove_first(&mut self) {
        let first = self.ordered.remove(0);
        self.sorted.remove(&first);
    }

    fn compare(&self, other: &NameList) -> Names {
        let new = |a: &NameList, b: &NameList| a.ordered.iter().position(|name| !b.sorted.contains(name));
        let (Some(first), Some(second)) = (new(self, other), new(other, self)) else { return Names::Compatible };
        let shares = self.ordered.iter().any(|name| other.sorted.contains(name));
        match (first, second, shares) {
            (0, 0, _) | (_, _, false) => Names::OtherSubject,
            _ => Names::OtherValue,
        }
    }
}

/// Whether the first word of a sentence is a plural or a gerund rather than a name: beside other names its capital says nothing.
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
