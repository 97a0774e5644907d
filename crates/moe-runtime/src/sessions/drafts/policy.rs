//! The length of the next draft, and whether to draft at all.
//!
//! Both follow from counts of accepted tokens and from [`StepCosts`], a table that is fixed when the model is loaded. No clock
//! is read, so equal sequences get equal drafts.
//!
//! A draft of `k` tokens, each accepted with the probability `a` once those before it are, gives `1 + a + ... + a^k` tokens in
//! a step of `k + 1` rows. A drafter that computes takes time for each token too
//! ([`Drafter::cost`](super::drafter::Drafter::cost)), whether the token becomes part of the draft and is verified or not. The
//! policy takes the `k` with the most tokens per cost, and none where no `k` beats a step of one row. `a` is counted for each
//! [`Confidence`] apart.
//!
//! **Invariant:** over any [`WINDOW`] tokens of an answer, drafts cost at most [`MAX_LOSS`] steps of one row more than they
//! save, whatever the drafter proposes. The policy keeps an account in such steps: a draft is made only while the
//! account can pay for all of it being wrong; half of the bound is the most that the account holds, and the other
//! half flows in evenly over a window. The account pays for the tokens that the drafter computes. The rows by which it follows
//! the sequence, as those of a prompt that it reads, are not counted.

use super::drafter::Confidence;
use crate::load::step_costs::StepCosts;

/// Tokens over which a loss is bounded.
pub(crate) const WINDOW: usize = 256;
/// Largest loss over a window, in steps of one row.
pub(crate) const MAX_LOSS: f64 = 8.0;

/// Tokens that are counted as tried before any is, and the shares of them that are counted as accepted, by confidence.
const PRIOR_TRIED: f64 = 4.0;
const PRIOR_SHARE: [f64; Confidence::MAX + 1] = [0.5, 0.6, 0.7, 0.8];
/// Counts are halved when so many tokens were tried, so that old ones matter less.
const MEMORY: f64 = 64.0;
/// Counts move towards the prior by half when so many tokens in a row came without a draft, so that drafts are tried again.
const PATIENCE: usize = 64;

/// Tokens of drafts that a step looked at. A wrong token hides the ones behind it, which do not count.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    tried: f64,
    accepted: f64,
}

impl Counts {
    fn share(self, prior: f64) -> f64 {
        (self.accepted + prior * PRIOR_TRIED) / (self.tried + PRIOR_TRIED)
    }

    fn halve(&mut self) {
        self.tried /= 2.0;
        self.accepted /= 2.0;
    }
}

/// Chooses the lengths of drafts.
#[derive(Clone, Debug)]
pub(crate) struct DraftPolicy {
    costs: StepCosts,
    /// The time that the drafter takes for a token, in steps of one row.
    token_cost: f64,
    counts: [Counts; Confidence::MAX + 1],
    /// The steps of one row that wrong drafts may still cost.
    account: f64,
    /// Tokens since the last draft.
    without: usize,
}

impl DraftPolicy {
    /// A policy for a drafter that takes `token_cost` steps of one row for each token that it drafts.
    pub(crate) fn new(costs: StepCosts, token_cost: f64) -> DraftPolicy {
        DraftPolicy { costs, token_cost, counts: Default::default(), account: MAX_LOSS / 2.0, without: 0 }
    }

    /// The longest draft that any confidence allows, at most `most` tokens, in a step with `beside` rows of other sequences.
    pub(crate) fn longest(&self, most: usize, beside: usize) -> usize {
        let length = |level| self.best_length(Confidence::new(level), most, beside, self.token_cost);
        (0..=Confidence::MAX).map(length).max().unwrap_or(0)
    }

    /// Tokens of the next draft, at most `most`, in a step that has `beside` rows of other sequences. The `most` tokens are
    /// drafted already, so their time counts no more.
    pub(crate) fn length(&self, confidence: Confidence, most: usize, beside: usize) -> usize {
        self.best_length(confidence, most, beside, 0.0)
    }

    fn best_length(&self, confidence: Confidence, most: usize, beside: usize, token_cost: f64) -> usize {
        let level = confidence.level();
        let share = self.counts[level].share(PRIOR_SHARE[level]);
        let others = beside as f64;
        let plain = self.costs.of(beside + 1);
        let (mut best, mut best_speed) = (0, (others + 1.0) / plain);
        let (mut tokens, mut probability) = (1.0, 1.0);
        for length in 1..=most {
            probability *= share;
            tokens += probability;
            let cost = self.costs.of(beside + 1 + length) + token_cost * length as f64;
            // The loss is counted in steps of one row, also where the step has other rows.
            if cost - plain > self.account {
                break;
            }
            let speed = (others + tokens) / cost;
            if speed > best_speed {
                (best, best_speed) = (length, speed);
            }
        }
        best
    }

    /// Pays for `computed` tokens of the drafter, whether they are part of the draft or not.
    pub(crate) fn pay(&mut self, computed: usize) {
        self.account -= self.token_cost * computed as f64;
    }

    /// Counts a step that had a draft of `drafted` tokens, of which the first `accepted` became part of the answer, or none.
    pub(crate) fn count(&mut self, confidence: Confidence, (drafted, accepted): (usize, usize), beside: usize) {
        let tokens = accepted + 1;
        let flow = MAX_LOSS / 2.0 / WINDOW as f64 * tokens as f64;
        let plain = self.costs.of(beside + 1);
        let loss = self.costs.of(beside + 1 + drafted) - plain;
        let saved = accepted as f64 * plain / (beside + 1) as f64;
        self.account = (self.account + flow + saved - loss).min(MAX_LOSS / 2.0);
        if drafted > 0 {
            let counts = &mut self.counts[confidence.level()];
            counts.tried += drafted.min(accepted + 1) as f64;
            counts.accepted += accepted as f64;
            if counts.tried > MEMORY {
                counts.halve();
            }
            self.without = 0;
        } else {
            self.without += 1;
            if self.without.is_multiple_of(PATIENCE) {
                self.counts.iter_mut().for_each(Counts::halve);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Confidence, DraftPolicy, MAX_LOSS, WINDOW};
    use crate::load::step_costs::StepCosts;
    use crate::rng::SplitMix64;

    /// The full-size `phase2` file.
    fn costs() -> StepCosts {
        StepCosts::new(1_220, 449, 4.0 / 64.0)
    }

    /// Answers `tokens` tokens with drafts whose tokens are accepted with the probability `share`, and returns the steps
    /// of one row that the answer cost, the length of the last draft and the largest loss over a window.
    fn run(share: f64, tokens: usize, most: usize) -> (f64, usize, f64) {
        run_with(0.0, share, tokens, most)
    }

    /// As [`run`], with a drafter that takes `token_cost` steps for each token of the longest draft that is allowed.
    fn run_with(token_cost: f64, share: f64, tokens: usize, most: usize) -> (f64, usize, f64) {
        let (mut policy, mut rng) = (DraftPolicy::new(costs(), token_cost), SplitMix64::new(7));
        let confidence = Confidence::new(1);
        let (mut cost, mut done, mut last) = (0.0, 0, 0);
        // The loss at each token so far.
        let mut losses = vec![0.0];
        while done < tokens {
            let made = policy.longest(most, 0);
            policy.pay(made);
            let drafted = policy.length(confidence, made, 0);
            let accepted = (0..drafted).take_while(|_| rng.next_f64() < share).count();
            policy.count(confidence, (drafted, accepted), 0);
            cost += costs().of(1 + drafted) + token_cost * made as f64;
            done += accepted + 1;
            last = drafted;
            losses.resize(done + 1, cost - done as f64);
        }
        let windows =
            (0..losses.len()).flat_map(|from| (from..losses.len().min(from + WINDOW + 1)).map(move |to| (from, to)));
        let worst = windows.map(|(from, to)| losses[to] - losses[from]).fold(0.0, f64::max);
        (cost, last, worst)
    }

    #[test]
    fn good_drafts_grow_and_save_time() {
        let (cost, last, _) = run(0.9, 400, 15);
        assert!(cost < 240.0, "400 tokens in {cost} steps of one row");
        assert!(last >= 4, "{last}");
        let (cost, last, _) = run(1.0, 400, 3);
        assert!(last == 3 && cost < 400.0 / 1.5, "the most that fit: {cost}");
    }

    #[test]
    fn wrong_drafts_end_and_their_loss_is_bounded() {
        for share in [0.0, 0.05, 0.2, 0.35, 0.5] {
            let (cost, _, worst) = run(share, 2000, 15);
            assert!(worst <= MAX_LOSS + 1e-9, "share {share}: a loss of {worst} over {WINDOW} tokens");
            assert!(cost < 2000.0 * (1.0 + MAX_LOSS / WINDOW as f64));
        }
        let (cost, _, _) = run(0.0, WINDOW, 15);
        assert!(cost > WINDOW as f64, "drafts were tried");
        assert!(cost <= WINDOW as f64 + MAX_LOSS, "{cost}");
    }

    #[test]
    fn the_time_of_a_drafter_counts_for_tokens_that_are_not_verified_too() {
        for (token_cost, share) in [(0.2, 0.0), (0.2, 0.3), (0.2, 0.6), (1.0, 0.5)] {
            let (cost, _, worst) = run_with(token_cost, share, 2000, 15);
            assert!(worst <= MAX_LOSS + 1e-9, "{token_cost}, {share}: a loss of {worst} over {WINDOW} tokens");
            assert!(cost < 2000.0 * (1.0 + MAX_LOSS / WINDOW as f64));
        }
        let (free, ..) = run(0.85, 2000, 15);
        let (paid, last, _) = run_with(0.15, 0.85, 2000, 15);
        assert!(last > 0 && free < paid && paid < 2000.0 * 0.9, "{free}, {paid}");
        assert_eq!(DraftPolicy::new(costs(), 2.0).longest(15, 0), 0, "a dear drafter is never asked");
    }

    #[test]
    fn drafts_are_tried_again_behind_a_bad_part() {
        let mut policy = DraftPolicy::new(costs(), 0.0);
        let confidence = Confidence::new(1);
        while policy.length(confidence, 8, 0) > 0 {
            policy.count(confidence, (1, 0), 0);
        }
        for _ in 0..1000 {
            policy.count(confidence, (0, 0), 0);
        }
        assert!(policy.length(confidence, 8, 0) > 0);
    }

    #[test]
    fn other_sequences_make_drafts_dearer() {
        let policy = DraftPolicy::new(costs(), 0.0);
        let confidence = Confidence::new(3);
        let lengths = [0, 3, 15].map(|beside| policy.length(confidence, 8, beside));
        assert!(lengths[0] > lengths[1] && lengths[1] >= lengths[2], "{lengths:?}");
        assert_eq!(policy.length(confidence, 0, 0), 0);
    }
}
