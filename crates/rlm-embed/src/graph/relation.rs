//! Whether two texts agree, contradict each other, or speak of different things.
//!
//! A trained encoder puts "X is closed" near "X is open", so the cosine alone never tells a contradiction. It says how near the
//! subjects are; four signals in the words say whether the statements can both be true:
//!
//! | signal | reads | misses |
//! |---|---|---|
//! | negation | an odd number of denying words on one side | denials that no list has |
//! | number | different numbers on both sides | numbers in words above twenty, other units |
//! | antonym | a pair of opposite words | opposites that no list has |
//! | entity | another name behind a shared one | a swapped subject, names in lower case |

use super::statement::{Names, Statement};

/// A sign of contradiction in the words of two statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the table of the module describes them")]
pub enum Signal {
    Negation,
    Number,
    Antonym,
    Entity,
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

/// The thresholds of a comparison, fitted on the fit split of the pairs.
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
        if cosine < self.least_cosine || a.overlap(b) < self.least_overlap {
            return Relation::Unrelated;
        }
        let names = a.compare_names(b);
        if names == Names::OtherSubject {
            return Relation::Unrelated;
        }
        let Signals { negation, number, antonym, entity } = self.signals;
        // Two denials of one kind cancel each other: "is not open" and "is closed" agree.
        let is_opposite = antonym && a.has_opposite(b);
        let is_denied = negation && a.is_negated() != b.is_negated();
        match () {
            () if number && a.differs_in_numbers(b) => Relation::Contradicts(Signal::Number),
            () if entity && names == Names::OtherValue => Relation::Contradicts(Signal::Entity),
            () if is_denied && is_opposite => Relation::Agrees,
            () if is_denied => Relation::Contradicts(Signal::Negation),
            () if is_opposite => Relation::Contradicts(Signal::Antonym),
            () => Relation::Agrees,
        }
    }
}
