//! Scales that lie in a tensor of their own, beside the weights that they multiply or divide: of 8 bits, or trits.
//!
//! ```text
//! weights [matrices, rows, cols]        scales [matrices or 1, grid rows, grid cols]
//!
//!   +----+----+-+                         +---+---+---+
//!   | b0 x b1 | |   one scale per block   | s | s | s |
//!   +----+----+-+   smaller at the edges  +---+---+---+
//!   +----+----+-+                         | s | s | s |
//! ```

/// The place of the scales of one tensor, and the blocks of weights that each multiplies.
///
/// **Invariant** of a validated source: the tensor of scales has one number per block, of a floating-point type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scales {
    /// Index of the tensor of scales in the same source.
    pub tensor: usize,
    /// Rows of one matrix of the weights.
    pub matrix_rows: usize,
    /// Rows and columns of a block, both at least 1; blocks at the lower and right edges of a matrix have fewer.
    pub block: [usize; 2],
    /// Rows and columns of the grid of scales of one matrix.
    pub grid: [usize; 2],
    /// Whether all matrices of a stack have the same scales.
    pub shared: bool,
    /// Whether weights are divided by their scale instead of multiplied.
    pub divide: bool,
}

impl Scales {
    /// The index of the first of the `grid[1]` scales of a row of the weights, flattened to `[rows, cols]`.
    pub(crate) fn first_of_row(&self, row: usize) -> usize {
        let (matrix, row) = (row / self.matrix_rows, row % self.matrix_rows);
        let matrix = if self.shared { 0 } else { matrix };
        (matrix * self.grid[0] + row / self.block[0]) * self.grid[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_find_their_scales() {
        let blocks = Scales { tensor: 0, matrix_rows: 5, block: [2, 4], grid: [3, 7], shared: false, divide: false };
        let firsts: Vec<_> = (0..11).map(|row| blocks.first_of_row(row)).collect();
        assert_eq!(firsts, [0, 0, 7, 7, 14, 21, 21, 28, 28, 35, 42]);
        let shared = Scales { shared: true, ..blocks };
        assert_eq!(shared.first_of_row(7), 7);
    }
}
