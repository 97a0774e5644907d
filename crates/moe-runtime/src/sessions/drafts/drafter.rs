//! The source of drafts.

use std::fmt::Debug;

/// How much a drafter trusts a draft, from 0 to [`Confidence::MAX`]. Drafts of equal confidence are counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confidence(usize);

impl Confidence {
    /// The level of a drafter that is hardly ever wrong.
    pub const MAX: usize = 3;

    /// The confidence `level`, at most [`Confidence::MAX`].
    #[must_use]
    pub fn new(level: usize) -> Confidence {
        Confidence(level.min(Self::MAX))
    }

    /// The number from 0 to [`Confidence::MAX`] under which drafts like this one are counted.
    #[must_use]
    pub fn level(self) -> usize {
        self.0
    }
}

/// The facts that a drafter tells about a draft.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guesses {
    /// How much it trusts the draft.
    pub confidence: Confidence,
    /// Tokens that it took the time for: those of the draft, and those that it computed and left out.
    pub computed: usize,
}

/// Guesses at the tokens that come next. A wrong guess costs time and changes nothing.
pub trait Drafter: Debug + Send {
    /// Forgets the sequence: the next draft is for another prompt.
    fn begin(&mut self);

    /// Adds to `draft`, which is empty, at most `most` tokens that may follow `sequence`: the prompt, and the answer with
    /// its newest token. Since [`Drafter::begin`], the sequence only grows. No more than `most` tokens are computed.
    fn draft(&mut self, sequence: &[u32], most: usize, draft: &mut Vec<u32>) -> Guesses;

    /// Takes the model's final hidden states `[n, hidden]` of the positions of `sequence` from `first` on. They come in order
    /// and once, for the positions that are computed behind [`Drafter::begin`]; a drafter of tokens has no use for them.
    #[expect(unused_variables, reason = "the default does nothing; the names document the arguments")]
    fn observe(&mut self, sequence: &[u32], first: usize, hidden: &[f32]) {}

    /// The time that a [computed](Guesses::computed) token takes, in steps of one row of the model.
    fn cost(&self) -> f64 {
        0.0
    }
}
