//! A batch sorted by expert, so that an expert's weights are read once for all tokens that chose it.
//!
//! ```text
//! decision, by token          rows, by expert
//! token 0: experts 1 4        part 0 = expert 0: token 1                cuts[0] = 0
//! token 1: experts 0 4   ──►  part 1 = expert 1: tokens 0 2             cuts[1] = 1
//! token 2: experts 1 4        part 2 = expert 4: tokens 0 1 2           cuts[2] = 3    cuts[3] = 6
//! ```
//!
//! **Invariant:** parts ascend by expert id, and tokens ascend within a part. Adding the rows up in their order therefore
//! adds the experts of each token in ascending order.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::forward::error::ForwardError;
use crate::forward::router::RoutingDecision;

/// The rows of one batch in the order in which experts compute them. Reused from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct MoeBatchScheduler {
    /// Per expert, the index of the row that its next token gets; `[n_experts + 1]`.
    ends: Vec<usize>,
    experts: Vec<u32>,
    cuts: Vec<usize>,
    tokens: Vec<u32>,
    weights: Vec<f32>,
    /// Tokens in the batch.
    n: usize,
}

impl MoeBatchScheduler {
    /// Sorts the decision for `n` tokens, in two passes over it.
    ///
    /// # Errors
    /// [`ForwardError::Routing`] when it names an expert at or above `n_experts` or covers another number of tokens.
    pub(crate) fn schedule(&mut self, decision: &RoutingDecision, n: usize, n_experts: usize) -> Result<()> {
        let slots = n.saturating_mul(decision.top_k);
        if decision.ids.len() != slots || decision.weights.len() != slots {
            return Err(Error::Forward(ForwardError::Routing {
                what: "the number of tokens",
                got: decision.n(),
                limit: n,
            }));
        }
        self.n = n;
        self.ends.clear();
        self.ends.resize(n_experts, 0);
        for &id in &decision.ids {
            match self.ends.get_mut(id as usize) {
                Some(count) => *count += 1,
                None => {
                    return Err(Error::Forward(ForwardError::Routing {
                        what: "an expert",
                        got: id as usize,
                        limit: n_experts,
                    }));
                }
            }
        }
        self.experts.clear();
        self.cuts.clear();
        self.cuts.push(0);
        let mut end = 0;
        for (expert, count) in (0u32..).zip(&mut self.ends) {
            let rows = std::mem::replace(count, end);
            if rows > 0 {
                end += rows;
                self.experts.push(expert);
                self.cuts.push(end);
            }
        }
        self.tokens.resize(slots, 0);
        self.weights.resize(slots, 0.0);
        for t in 0..n {
            for (id, weight) in decision.token(t) {
                let row = &mut self.ends[id as usize];
                self.tokens[*row] = u32::try_from(t).unwrap_or(u32::MAX);
                self.weights[*row] = weight;
                *row += 1;
            }
        }
        Ok(())
    }

    /// The experts that have tokens, ascending: one per part.
    #[must_use]
    pub(crate) fn experts(&self) -> &[u32] {
        &self.experts
    }

    /// Where each part starts, and the end of the last one.
    #[must_use]
    pub(crate) fn cuts(&self) -> &[usize] {
        &self.cuts
    }

    /// Number of rows of all parts.
    #[must_use]
    pub(crate) fn n_rows(&self) -> usize {
        self.tokens.len()
    }

    /// The rows of part `part`.
    ///
    /// # Panics
    /// When there is no such part.
    #[must_use]
    pub(crate) fn rows(&self, part: usize) -> Range<usize> {
        self.cuts[part]..self.cuts[part + 1]
    }

    /// Each part's expert and rows, in order.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        let rows = self.cuts.windows(2).map(|cut| cut[0]..cut[1]);
        self.experts.iter().map(|&e| e as usize).zip(rows)
    }

    /// The token that each row belongs to.
    #[must_use]
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The weight that the output of each row is multiplied with.
    #[must_use]
    pub(crate) fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// Whether the rows of `part` are all tokens of the batch in their order. Such a part reads the batch without a copy.
    #[must_use]
    pub(crate) fn is_whole_batch(&self, part: usize) -> bool {
        let tokens = &self.tokens[self.rows(part)];
        tokens.len() == self.n && tokens.iter().zip(0u32..).all(|(&t, i)| t == i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_by_expert_and_token() {
        let mut batch = MoeBatchScheduler::default();
        let decision =
            RoutingDecision { top_k: 2, ids: vec![1, 4, 0, 4, 1, 4], weights: vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6] };
        for _ in 0..2 {
            batch.schedule(&decision, 3, 5).expect("it fits");
            assert_eq!(batch.experts(), [0, 1, 4]);
            assert_eq!(batch.cuts(), [0, 1, 3, 6]);
            assert_eq!(batch.tokens(), [1, 0, 2, 0, 1, 2]);
            assert_eq!(batch.weights(), [0.3, 0.1, 0.5, 0.2, 0.4, 0.6]);
            assert_eq!([0, 1, 2].map(|part| batch.is_whole_batch(part)), [false, false, true]);
        }
        assert!(batch.schedule(&decision, 3, 4).is_err(), "expert 4 of 4");
        assert!(batch.schedule(&decision, 2, 5).is_err(), "two tokens");
        let nothing = RoutingDecision { top_k: 2, ..RoutingDecision::default() };
        batch.schedule(&nothing, 0, 5).expect("an empty decision fits");
        assert_eq!((batch.experts().len(), batch.cuts()), (0, &[0][..]));
    }

    #[test]
    fn an_expert_chosen_twice_computes_twice() {
        let mut batch = MoeBatchScheduler::default();
        let decision = RoutingDecision { top_k: 2, ids: vec![2; 4], weights: vec![1.0, 2.0, 3.0, 4.0] };
        batch.schedule(&decision, 2, 3).expect("it fits");
        assert_eq!((batch.experts(), batch.tokens()), (&[2][..], &[0, 0, 1, 1][..]));
        assert!(!batch.is_whole_batch(0));
    }
}
