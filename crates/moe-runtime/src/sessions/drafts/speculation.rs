//! The drafts of one sequence: which tokens the next step verifies, and what became of them.

use super::drafter::{Confidence, Drafter};
use super::policy::DraftPolicy;
use crate::load::step_costs::StepCosts;

/// Steps and drafts of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DraftStatistics {
    /// Steps behind the prompt, of one token or of a draft.
    pub steps: usize,
    /// Guessed tokens that these steps verified.
    pub drafted_tokens: usize,
    /// Guessed tokens that the sampler chose too, so that they are part of the answer.
    pub accepted_tokens: usize,
}

impl DraftStatistics {
    /// Tokens of the answer for each step; 1 without drafts, 0 without steps.
    #[must_use]
    pub fn tokens_per_step(&self) -> f64 {
        if self.steps == 0 { 0.0 } else { (self.steps + self.accepted_tokens) as f64 / self.steps as f64 }
    }

    /// Adds the counts of another answer.
    pub fn add(&mut self, other: DraftStatistics) {
        self.steps += other.steps;
        self.drafted_tokens += other.drafted_tokens;
        self.accepted_tokens += other.accepted_tokens;
    }
}

/// A drafter with the policy for the lengths of its drafts. The policy goes on from answer to answer.
#[derive(Debug)]
pub struct Speculation {
    drafter: Box<dyn Drafter>,
    policy: DraftPolicy,
    vocab: usize,
    /// The prompt and the answer so far.
    sequence: Vec<u32>,
    /// The tokens that the next step verifies.
    draft: Vec<u32>,
    confidence: Confidence,
    statistics: DraftStatistics,
}

impl Speculation {
    /// Longest draft, in tokens.
    pub const MAX_DRAFT: usize = 15;

    /// The drafts of `drafter` for a model of `vocab` tokens with steps of these costs.
    #[must_use]
    pub fn new(drafter: Box<dyn Drafter>, costs: StepCosts, vocab: usize) -> Speculation {
        Speculation {
            policy: DraftPolicy::new(costs, drafter.cost()),
            drafter,
            vocab,
            sequence: Vec::new(),
            draft: Vec::new(),
            confidence: Confidence::default(),
            statistics: DraftStatistics::default(),
        }
    }

    /// Begins an answer to `prompt`.
    pub(crate) fn begin(&mut self, prompt: &[u32]) {
        self.sequence.clear();
        self.sequence.extend_from_slice(prompt);
        self.draft.clear();
        self.drafter.begin();
        self.statistics = DraftStatistics::default();
    }

    /// Takes a token of the answer.
    pub(crate) fn push(&mut self, token: u32) {
        self.sequence.push(token);
    }

    /// Takes the final hidden states `[n, hidden]` of the positions from `first` on, whose tokens are part of the sequence.
    pub(crate) fn observe(&mut self, first: usize, hidden: &[f32]) {
        self.drafter.observe(&self.sequence, first, hidden);
    }

    /// The tokens that may follow the answer, at most `most`, for a step that has `beside` rows of other sequences.
    pub(crate) fn draft(&mut self, most: usize, beside: usize) -> &[u32] {
        self.draft.clear();
        let most = self.policy.longest(most.min(Self::MAX_DRAFT), beside);
        if most > 0 {
            let guesses = self.drafter.draft(&self.sequence, most, &mut self.draft);
            self.confidence = guesses.confidence;
            self.policy.pay(guesses.computed);
        }
        let known = self.draft.iter().take_while(|&&token| (token as usize) < self.vocab).count();
        let length = self.policy.length(self.confidence, known.min(most), beside);
        self.draft.truncate(length);
        &self.draft
    }

    /// Counts the step that verified the last draft, whose first `accepted` tokens became part of the answer.
    pub(crate) fn count(&mut self, accepted: usize, beside: usize) {
        let drafted = self.draft.len();
        self.policy.count(self.confidence, (drafted, accepted), beside);
        self.statistics.steps += 1;
        self.statistics.drafted_tokens += drafted;
        self.statistics.accepted_tokens += accepted;
    }

    /// The counts of the answer so far.
    pub(crate) fn statistics(&self) -> DraftStatistics {
        self.statistics
    }
}

#[cfg(test)]
mod tests {
    use super::super::drafter::{Confidence, Drafter, Guesses};
    use super::super::policy::{MAX_LOSS, WINDOW};
    use super::Speculation;
    use crate::load::step_costs::StepCosts;

    /// The time of a token of [`Doubtful`], in steps of one row.
    const COST: f64 = 0.2;

    /// Computes two tokens where it may, and returns the first of them, which is wrong.
    #[derive(Debug)]
    struct Doubtful;

    impl Drafter for Doubtful {
        fn begin(&mut self) {}

        fn draft(&mut self, _sequence: &[u32], most: usize, draft: &mut Vec<u32>) -> Guesses {
            draft.push(0);
            Guesses { confidence: Confidence::default(), computed: most.min(2) }
        }

        fn cost(&self) -> f64 {
            COST
        }
    }

    #[test]
    fn tokens_that_were_computed_are_paid_for_although_they_are_no_part_of_the_draft() {
        let costs = StepCosts::new(1000, 0, 1.0);
        let mut drafts = Speculation::new(Box::new(Doubtful), costs.clone(), 9);
        drafts.begin(&[1]);
        // The loss at each token so far, in steps of one row, and how many tokens were computed.
        let (mut losses, mut computed) = (vec![0.0], 0);
        for _ in 0..4 * WINDOW {
            let asked = drafts.policy.longest(5, 0).min(2);
            let drafted = drafts.draft(5, 0).len();
            drafts.count(0, 0);
            drafts.push(1);
            computed += asked;
            let loss = costs.of(1 + drafted) - 1.0 + COST * asked as f64;
            losses.push(losses[losses.len() - 1] + loss);
        }
        let worst = losses.windows(WINDOW + 1).map(|window| window[WINDOW] - window[0]).fold(0.0, f64::max);
        assert!(computed > 20, "{computed}");
        assert!(worst <= MAX_LOSS + 1e-9, "a loss of {worst} over {WINDOW} tokens");
    }
}
