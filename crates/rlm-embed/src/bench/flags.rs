//! Contradiction flags on pairs of known kind.

use std::collections::BTreeMap;

use super::claims::{ClaimSet, Kind};
use crate::encoder::cosine;
use crate::graph::{Comparison, Relation, RelationRules, Statement};

/// How often pairs of one kind are flagged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlagCounts {
    /// Pairs of a claim and a text of the kind.
    pub pairs: u64,
    /// Pairs flagged as contradictions.
    pub flagged: u64,
    /// Pairs taken for agreement.
    pub agreeing: u64,
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

/// Counts the pairs that `rules` flag or find to agree.
pub(super) fn count(pairs: &[(Kind, Comparison)], rules: &RelationRules) -> BTreeMap<Kind, FlagCounts> {
    let mut counts: BTreeMap<Kind, FlagCounts> = BTreeMap::new();
    for (kind, comparison) in pairs {
        let relation = rules.judge(comparison);
        let count = counts.entry(*kind).or_default();
        count.pairs += 1;
        count.flagged += u64::from(matches!(relation, Relation::Contradicts(_)));
        count.agreeing += u64::from(relation == Relation::Agrees);
    }
    counts
}
