//! Contradiction flags on pairs of known kind.

use std::collections::BTreeMap;

use super::claims::{ClaimSet, Kind};
use crate::encoder::cosine;
use crate::graph::{Comparison, Relation, RelationRules, Statement};

/// How often pairs of one kind are flagged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlagCounts {
    /// Pairs of a claim and a text.
    pub pairs: u64,
    /// Pairs flagged as contradictions.
    pub flagged: u64,
    /// Pairs taken for agreement.
    pub agreeing: u64,
}

impl FlagCounts {
    fn take(&mut self, relation: Relation) {
        self.flagged += u64::from(matches!(relation, Relation::Contradicts(_)));
        self.agreeing += u64::from(relation == Relation::Agrees);
    }
}

/// Compares every claim with each of its texts, and counts.
#[must_use]
pub fn flags(set: &ClaimSet, rules: &RelationRules) -> BTreeMap<Kind, FlagCounts> {
    count(&compared(set), rules)
}

/// The comparison of every claim with each of its texts.
pub(super) fn compared(set: &ClaimSet) -> Vec<(Kind, Comparison)> {
    let mut pairs = Vec::new();
    for (i, claim) in set.claims.iter().enumerate() {
        let statement = Statement::new(&claim.claim);
        for (row, kind) in set.texts(i) {
            let Some(kind) = kind else { continue };
            let cosine = cosine(set.store.vector(set.rows[i]), set.store.vector(row));
            let other = Statement::new(set.store.chunk(row).text);
            pairs.push((kind, Comparison::new(&statement, &other, cosine)));
        }
    }
    pairs
}

/// The comparison of every claim with every distractor.
pub(super) fn compared_with_distractors(set: &ClaimSet) -> Vec<Comparison> {
    let statement = |row: usize| Statement::new(set.store.chunk(row).text);
    let distractors = set.store.live_rows().skip(set.n_claim_texts());
    let distractors: Vec<(usize, Statement)> = distractors.map(|row| (row, statement(row))).collect();
    let mut pairs = Vec::with_capacity(set.rows.len() * distractors.len());
    for &row in &set.rows {
        let claim = statement(row);
        for (other, distractor) in &distractors {
            let cosine = cosine(set.store.vector(row), set.store.vector(*other));
            pairs.push(Comparison::new(&claim, distractor, cosine));
        }
    }
    pairs
}

/// Compares every claim with every distractor, none of which contradicts one.
#[must_use]
pub fn flagged_distractors(set: &ClaimSet, rules: &RelationRules) -> FlagCounts {
    count_distractors(&compared_with_distractors(set), rules)
}

pub(super) fn count_distractors(pairs: &[Comparison], rules: &RelationRules) -> FlagCounts {
    let mut counts = FlagCounts { pairs: pairs.len() as u64, ..FlagCounts::default() };
    for comparison in pairs {
        counts.take(rules.judge(comparison));
    }
    counts
}

/// Counts the pairs that `rules` flag or find to agree.
pub(super) fn count(pairs: &[(Kind, Comparison)], rules: &RelationRules) -> BTreeMap<Kind, FlagCounts> {
    let mut counts: BTreeMap<Kind, FlagCounts> = BTreeMap::new();
    for (kind, comparison) in pairs {
        let count = counts.entry(*kind).or_default();
        count.pairs += 1;
        count.take(rules.judge(comparison));
    }
    counts
}
