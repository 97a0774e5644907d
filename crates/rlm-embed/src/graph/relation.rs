//! Whether two texts agree, contradict each other, or speak of different things.
//!
//! A trained encoder puts "X is closed" near "X is open", so the cosine alone never tells a contradiction. It says how near the
//! subjects are; signals in the words say whether the statements can both be true:
//!
//! | signal | reads | misses |
//! |---|---|---|
//! | negation | an odd number of denying words in one sentence, an even number in the other | denials that no list has |
//! | number | different numbers on both sides | numbers in words above twenty, other units |
//! | antonym | a pair of opposite words | opposites that no list has |
//! | entity | another name behind a shared one | a swapped subject, names in lower case |
//! | answer | different answers to the question that both texts bear on | questions and texts that do not parse |
//!
//! Texts of several sentences are compared by the pairs of sentences of which each is the one nearest to the other by its words.
//! A contradiction in one pair is one of the texts. The signal `answer` needs a question: see `evidence.rs`.

use super::statement::{Names, Sentence, Statement};

/// A sign of contradiction in the words of two statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the table of the module describes them")]
pub enum Signal {
    Negation,
    Number,
    Antonym,
    Entity,
    Answer,
}

impl Signal {
    /// The name for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Signal::Negation => "negation",
            Signal::Number => "number",
            Signal::Antonym => "antonym",
            Signal::Entity => "entity",
            Signal::Answer => "answer",
        }
    }
}

/// Which signals a comparison uses; for ablations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Signals {
    pub negation: bool,
    pub number: bool,
    pub antonym: bool,
    pub entity: bool,
}

impl Signals {
    /// All four signals are used.
    pub const ALL: Signals = Signals { negation: true, number: true, antonym: true, entity: true };
}

/// How two statements stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// They speak of one thing and can both be true.
    Agrees,
    /// They speak of one thing and cannot both be true.
    Contradicts(Signal),
    /// They speak of different things.
    Unrelated,
}

/// The thresholds of a comparison. The defaults are chosen; `bitnet embed bench` measures them beside fitted ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RelationRules {
    /// Statements speak of one thing when their cosine is at least this ...
    pub least_cosine: f32,
    /// ... and their words overlap at least this much.
    pub least_overlap: f32,
    /// Signals that tell contradictions.
    pub signals: Signals,
}

impl Default for RelationRules {
    fn default() -> Self {
        RelationRules { least_cosine: 0.6, least_overlap: 0.3, signals: Signals::ALL }
    }
}

impl RelationRules {
    /// The relation of `a` and `b`, whose vectors have this `cosine`.
    ///
    /// ```
    /// use rlm_embed::graph::{Relation, RelationRules, Signal, Statement};
    /// let rules = RelationRules::default();
    /// let relation = |a, b| rules.relation(&Statement::new(a), &Statement::new(b), 0.9);
    /// assert_eq!(relation("Orrin cures fever.", "Orrin does not cure fever."), Relation::Contradicts(Signal::Negation));
    /// assert_eq!(relation("Fever is cured by Orrin.", "Orrin cures fever."), Relation::Agrees);
    /// assert_eq!(relation("Orrin cures fever.", "The bridge spans the Elm."), Relation::Unrelated);
    /// ```
    #[must_use]
    pub fn relation(&self, a: &Statement, b: &Statement, cosine: f32) -> Relation {
        match cosine < self.least_cosine {
            true => Relation::Unrelated,
            false => self.judge(&Comparison::new(a, b, cosine)),
        }
    }

    /// The relation of two texts whose comparison has been made.
    #[must_use]
    pub fn judge(&self, comparison: &Comparison) -> Relation {
        if comparison.cosine < self.least_cosine {
            return Relation::Unrelated;
        }
        let pairs = comparison.pairs.iter().filter(|pair| pair.overlap >= self.least_overlap);
        let relations = pairs.map(|pair| self.relation_of(pair));
        relations.min_by_key(Relation::rank).unwrap_or(Relation::Unrelated)
    }

    fn relation_of(&self, pair: &Pair) -> Relation {
        let Signals { negation, number, antonym, entity } = self.signals;
        if pair.names == Names::OtherSubject {
            return Relation::Unrelated;
        }
        // Two denials of one kind cancel each other: "is not open" and "is closed" agree.
        let (is_opposite, is_denied) = (antonym && pair.is_opposite, negation && pair.is_denied);
        match () {
            () if number && pair.has_other_number => Relation::Contradicts(Signal::Number),
            () if entity && pair.names == Names::OtherValue => Relation::Contradicts(Signal::Entity),
            () if is_denied && is_opposite => Relation::Agrees,
            () if is_denied => Relation::Contradicts(Signal::Negation),
            () if is_opposite => Relation::Contradicts(Signal::Antonym),
            () => Relation::Agrees,
        }
    }
}

impl Relation {
    /// Contradictions come first, then agreement.
    fn rank(&self) -> (u8, Option<Signal>) {
        match self {
            Relation::Contradicts(signal) => (0, Some(*signal)),
            Relation::Agrees => (1, None),
            Relation::Unrelated => (2, None),
        }
    }
}

/// All that thresholds judge about two texts, so that many thresholds are tried at the cost of one comparison.
#[derive(Clone, Debug)]
pub struct Comparison {
    cosine: f32,
    /// Empty for texts about different subjects.
    pairs: Vec<Pair>,
}

impl Comparison {
    /// Compares two texts whose vectors have this `cosine`.
    #[must_use]
    pub fn new(a: &Statement, b: &Statement, cosine: f32) -> Comparison {
        let pairs = match a.compare_names(b) {
            Names::OtherSubject => Vec::new(),
            Names::Compatible | Names::OtherValue => {
                a.matches(b).into_iter().map(|(a, b, overlap)| Pair::new(a, b, overlap)).collect()
            }
        };
        Comparison { cosine, pairs }
    }
}

/// Two sentences that match, compared.
#[derive(Clone, Copy, Debug)]
struct Pair {
    overlap: f32,
    names: Names,
    has_other_number: bool,
    is_opposite: bool,
    is_denied: bool,
}

impl Pair {
    fn new(a: &Sentence, b: &Sentence, overlap: f32) -> Pair {
        Pair {
            overlap,
            names: a.compare_names(b),
            has_other_number: a.differs_in_numbers(b),
            is_opposite: a.has_opposite(b),
            is_denied: a.is_negated() != b.is_negated(),
        }
    }
}
