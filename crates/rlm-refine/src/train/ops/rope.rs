//! Rotary position embedding of many heads at once. The backward operation turns by the opposite angle.

use mla_attention::{Rope, RopeStyle};
use tl_kernels::math;

/// The turns of the positions `0..n` of a window.
#[derive(Clone, Debug)]
pub struct Turns {
    style: RopeStyle,
    pairs: usize,
    /// `[n, pairs]` of (sin, cos).
    turns: Vec<(f32, f32)>,
}

/// The direction of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// As the model turns queries and keys.
    Forward,
    /// Back: the transpose, which gradients need.
    Backward,
}

impl Turns {
    /// The turns of the first `n` positions.
    #[must_use]
    pub fn new(rope: &Rope, n: usize) -> Self {
        let frequencies = rope.inverse_frequencies();
        let turn = |i: usize| math::sin_cos((i / frequencies.len()) as f32 * frequencies[i % frequencies.len()]);
        let turns = (0..n * frequencies.len()).map(turn).collect();
        Self { style: rope.style(), pairs: frequencies.len(), turns }
    }

    /// Turns the values of `head` that are rotated, `[2 * pairs]`, by the angle of `position`.
    ///
    /// # Panics
    /// When the position is beyond the table or the head has another width.
    pub fn rotate(&self, position: usize, head: &mut [f32], turn: Turn) {
        assert_eq!(head.len(), 2 * self.pairs, "a rotated head is as wide as its embedding");
        for (i, &(sin, cos)) in self.turns[position * self.pairs..][..self.pairs].iter().enumerate() {
            let sin = if turn == Turn::Forward { sin } else { -sin };
            let (first, second) = match self.style {
                RopeStyle::Interleaved => (2 * i, 2 * i + 1),
                RopeStyle::Halves => (i, i + self.pairs),
            };
            let (x, y) = (head[first], head[second]);
            (head[first], head[second]) = (x * cos - y * sin, x * sin + y * cos);
        }
    }
}
