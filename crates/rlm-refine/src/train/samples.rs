//! Random numbers for the tests of this room.

use moe_runtime::SplitMix64;

/// A stream of numbers that are near a normal distribution.
pub(crate) struct Samples(SplitMix64);

impl Samples {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    /// `n` numbers of mean 0 and deviation 1.
    pub(crate) fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| ((0..12).map(|_| self.0.next_f64()).sum::<f64>() - 6.0) as f32).collect()
    }
}
