//! A decoded ternary block: trits and the scale they share.
//!
//! ```
//! use ternary_core::TernaryBlock;
//!
//! let block = TernaryBlock { trits: [1, 0, -1, 1], scale: 0.5 };
//! let mut weights = [0.0; 4];
//! block.dequantize(&mut weights);
//! assert_eq!(weights, [0.5, 0.0, -0.5, 0.5]);
//! assert_eq!(block.dot(&[10, 20, 30, 40]), 10 - 30 + 40);
//! ```

/// Weights per block in every file: one row of a matrix is a whole number of blocks.
pub const BLOCK: usize = 256;

/// `N` ternary weights and their scale; the value of weight `i` is `trits[i] * scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TernaryBlock<const N: usize = BLOCK> {
    /// Each -1, 0 or +1.
    pub trits: [i8; N],
    /// The block's scale widened to f32, or the tensor's where it has a single one.
    pub scale: f32,
}

impl<const N: usize> TernaryBlock<N> {
    /// Writes the weights' values.
    pub fn dequantize(&self, out: &mut [f32; N]) {
        for (value, &trit) in out.iter_mut().zip(&self.trits) {
            *value = f32::from(trit) * self.scale;
        }
    }

    /// The exact sum of trit times INT8 activation; at most 127 N in magnitude.
    #[must_use]
    pub fn dot(&self, q: &[i8; N]) -> i32 {
        self.trits.iter().zip(q).map(|(&t, &q)| i32::from(t) * i32::from(q)).sum()
    }
}
