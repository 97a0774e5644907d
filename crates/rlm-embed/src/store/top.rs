//! The k best of many scores.
//!
//! **Invariant:** the order is total: higher scores first, equal scores by row, NaN never. So the result depends neither on the
//! order of the calls nor on the number of threads.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::retriever::Neighbor;

/// Keeps the `k` best of the rows that it is shown.
#[derive(Debug)]
pub(super) struct Top {
    k: usize,
    /// The worst of the kept rows on top.
    kept: BinaryHeap<Reverse<Ranked>>,
}

impl Top {
    pub(super) fn new(k: usize) -> Top {
        Top { k, kept: BinaryHeap::new() }
    }

    pub(super) fn push(&mut self, row: usize, score: f32) {
        let ranked = Ranked(Neighbor { row, score });
        let is_full = self.kept.len() == self.k;
        if score.is_nan() || self.k == 0 || (is_full && self.kept.peek().is_some_and(|worst| ranked <= worst.0)) {
            return;
        }
        if is_full {
            self.kept.pop();
        }
        self.kept.push(Reverse(ranked));
    }

    /// The kept rows, the best first.
    pub(super) fn into_sorted(self) -> Vec<Neighbor> {
        self.kept.into_sorted_vec().into_iter().map(|Reverse(Ranked(neighbor))| neighbor).collect()
    }
}

#[derive(Debug, PartialEq)]
struct Ranked(Neighbor);

impl Eq for Ranked {}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        // Adding 0.0 makes -0.0 equal to 0.0.
        (self.0.score + 0.0).total_cmp(&(other.0.score + 0.0)).then(other.0.row.cmp(&self.0.row))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::Top;

    #[test]
    fn the_best_rows_in_order_whatever_the_order_of_the_calls() {
        let scores = [0.5, f32::NAN, 0.9, 0.5, -0.0, 0.0, 0.9, -1.0];
        let mut rows: Vec<usize> = (0..scores.len()).collect();
        for turn in 0..scores.len() {
            rows.rotate_left(turn);
            let mut top = Top::new(5);
            rows.iter().for_each(|&row| top.push(row, scores[row]));
            let sorted: Vec<usize> = top.into_sorted().iter().map(|n| n.row).collect();
            assert_eq!(sorted, [2, 6, 0, 3, 4]);
        }
        let mut none = Top::new(0);
        none.push(1, 1.0);
        assert!(none.into_sorted().is_empty());
    }
}
