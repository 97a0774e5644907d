//! Rotary position embedding (arXiv 2104.09864): pairs of values turn by an angle that grows with
//! the position.
//!
//! ```text
//! inverse frequency i   f_i = 1 / theta^(2i / dims)              i < dims / 2
//! angle of position p   a_i = p * f_i                            in f32, as the models were trained
//! (x, y) -> (x cos a_i - y sin a_i,  x sin a_i + y cos a_i)
//!
//! Interleaved   x y x y x y x y        pair i = values 2i and 2i + 1
//! Halves        x x x x y y y y        pair i = values i and i + dims / 2
//! ```
//!
//! Both styles give scores of the same form, but not the same scores: a model's weights fit the style
//! it was trained with, and only that one. GLM-4.7-Flash and DeepSeek-V2 rotate neighbours,
//! GLM-4.5 (`glm4_moe`) rotates halves.
//!
//! **Invariant**: the frequencies are rounded to f32 after the power and again after the reciprocal, and the angle is
//! an f32 product, as in the reference implementation. At position 200,000 an error of one unit in the last place of a
//! frequency turns the pair by a different angle, which changes the scores.

use tl_kernels::math;

use crate::error::Error;

/// The values that form a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// Neighbours `(2i, 2i + 1)`.
    Interleaved,
    /// `(i, i + dims / 2)`.
    Halves,
}

/// The largest width of a rotated part that is accepted.
const MAX_DIMS: usize = 1 << 16;

/// A rotary embedding of `dims` values with base `theta`.
///
/// ```
/// use mla_attention::{Rope, RopeStyle};
///
/// let rope = Rope::new(10_000.0, 4, RopeStyle::Interleaved)?;
/// let mut head = [1.0, 0.0, 1.0, 0.0];
/// rope.rotate(1, &mut head);
/// // The first pair turns by 1 radian, the second by 1 / sqrt(10_000) = 0.01.
/// assert!((head[0] - 1f32.cos()).abs() < 1e-6 && (head[1] - 1f32.sin()).abs() < 1e-6);
/// assert!((head[3] - 0.01).abs() < 1e-6);
/// # Ok::<(), mla_attention::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    style: RopeStyle,
    /// One per pair, `[dims / 2]`.
    inverse_frequencies: Vec<f32>,
}

impl Rope {
    /// A rotation of `dims` values (even; 0 rotates nothing) with base `theta`.
    ///
    /// # Errors
    /// [`Error::Config`] when `dims` is odd or beyond 65,536, or `theta` is not a
    /// positive finite number.
    pub fn new(theta: f32, dims: usize, style: RopeStyle) -> Result<Rope, Error> {
        if !dims.is_multiple_of(2) || dims > MAX_DIMS {
            return Err(Error::Config {
                field: "rope dims",
                expected: format!("even and at most {}", MAX_DIMS),
                got: dims.to_string(),
            });
        }
        if !theta.is_finite() || theta <= 0.0 {
            return Err(Error::Config {
                field: "rope theta",
                expected: "a positive finite number".into(),
                got: theta.to_string(),
            });
        }
        let inverse_frequency = |i: usize| {
            let exponent = (2 * i) as f32 / dims as f32;
            let power = math::pow(f64::from(theta), f64::from(exponent)) as f32;
            1.0 / power
        };
        let inverse_frequencies = (0..dims / 2).map(inverse_frequency).collect();
        Ok(Rope { style, inverse_frequencies })
    }

    /// How many values are rotated.
    #[must_use]
    pub fn dims(&self) -> usize {
        2 * self.inverse_frequencies.len()
    }

    /// The values that form a pair.
    #[must_use]
    pub fn style(&self) -> RopeStyle {
        self.style
    }

    /// The angle per position of each pair, `[dims / 2]`, in radians.
    #[must_use]
    pub fn inverse_frequencies(&self) -> &[f32] {
        &self.inverse_frequencies
    }

    /// Rotates `head` `[dims]` to `position`, in place.
    ///
    /// # Panics
    /// When `head` has another length than [`Rope::dims`].
    pub fn rotate(&self, position: usize, head: &mut [f32]) {
        let mut table = RopeTable::default();
        table.fill(self, std::iter::once(position));
        table.rotate(0, head);
    }
}

/// Sines and cosines of the positions of a batch, computed once and used by every head.
#[derive(Debug, Default)]
pub(crate) struct RopeTable {
    style: Option<RopeStyle>,
    pairs: usize,
    /// `[n, pairs]` of (sin, cos).
    turns: Vec<(f32, f32)>,
}

impl RopeTable {
    /// Computes the turns of `positions`.
    pub(crate) fn fill(&mut self, rope: &Rope, positions: impl ExactSizeIterator<Item = usize>) {
        self.style = Some(rope.style);
        self.pairs = rope.inverse_frequencies.len();
        self.turns.clear();
        self.turns.reserve(positions.len() * self.pairs);
        for position in positions {
            let position = position as f32;
            let turn = |f: &f32| math::sin_cos(position * f);
            self.turns.extend(rope.inverse_frequencies.iter().map(turn));
        }
    }

    /// Rotates `head` `[dims]` to the `token`-th position of the batch.
    pub(crate) fn rotate(&self, token: usize, head: &mut [f32]) {
        assert_eq!(head.len(), 2 * self.pairs, "a rotated head must be as wide as its embedding");
        let turns = &self.turns[token * self.pairs..][..self.pairs];
        if self.style == Some(RopeStyle::Halves) {
            let (xs, ys) = head.split_at_mut(self.pairs);
            for ((x, y), turn) in xs.iter_mut().zip(ys).zip(turns) {
                (*x, *y) = turned(*x, *y, *turn);
            }
        } else {
            for (pair, turn) in head.chunks_exact_mut(2).zip(turns) {
                (pair[0], pair[1]) = turned(pair[0], pair[1], *turn);
            }
        }
    }
}

fn turned(x: f32, y: f32, (sin, cos): (f32, f32)) -> (f32, f32) {
    (x * cos - y * sin, x * sin + y * cos)
}
