//! The thought at the beginning of an answer, and the number of tokens it may have.

/// A thought that the prompt has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thought {
    /// The token that ends it.
    end: u32,
    /// How many more tokens it may have; `None` is no limit.
    left: Option<usize>,
}

impl Thought {
    pub(super) fn new(end: u32, budget: Option<usize>) -> Thought {
        Thought { end, left: budget }
    }

    /// The end of the thought, when nothing else may come next.
    pub(super) fn forced(self) -> Option<u32> {
        (self.left == Some(0)).then_some(self.end)
    }

    /// The thought behind `token`; `None` when that was its end.
    pub(super) fn after(self, token: u32) -> Option<Thought> {
        let left = self.left.map(|left| left.saturating_sub(1));
        (token != self.end).then_some(Thought { left, ..self })
    }
}
