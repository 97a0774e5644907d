//! Matrices that several threads write, cut into parts that are handed out once each.
//!
//! ```text
//! a Grid over y [n, width]:            |--block 0--|--block 1--|-b2-|
//!                          cut 0  row 0|  cell 0   |  cell 1   | c2 |      rows are cut where the caller says,
//!                          cut 1  row 1|  cell 3   |  cell 4   | c5 |      columns every `block`
//!                                 row 2|           |           |    |
//! ```
//!
//! **Invariant:** no two [`ColumnBlock`]s that exist at the same time reach the same element.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Exclusive access to a range of columns of some rows of a matrix.
pub struct ColumnBlock<'a, T> {
    /// The first of `columns` in row 0.
    first: *mut T,
    /// Elements from one row to the next.
    stride: usize,
    n_rows: usize,
    columns: Range<usize>,
    exclusive: PhantomData<&'a mut [T]>,
}

impl<'a, T> ColumnBlock<'a, T> {
    /// All of `data` `[n, columns.len()]`; its first column is called `columns.start`.
    ///
    /// # Panics
    /// If there are no columns, or `data` is no whole number of rows.
    #[must_use]
    pub fn whole(data: &'a mut [T], columns: Range<usize>) -> ColumnBlock<'a, T> {
        let stride = columns.len();
        assert!(stride > 0 && data.len().is_multiple_of(stride), "data must hold whole rows");
        let n_rows = data.len() / stride;
        ColumnBlock { first: data.as_mut_ptr(), stride, n_rows, columns, exclusive: PhantomData }
    }

    /// The columns of this block.
    #[must_use]
    pub fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// Number of rows of this block.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// This block's columns of row `row`: element 0 is column `columns().start`.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    #[allow(unsafe_code, reason = "disjoint column ranges of one matrix are written by several threads")]
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.n_rows, "row {row} of {}", self.n_rows);
        // SAFETY: `row < n_rows`, so these elements belong to the block. By the invariant no other block reaches them,
        // the matrix stays borrowed for 'a, and `&mut self` keeps this block from lending two rows at once.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(row * self.stride), self.columns.len()) }
    }

    /// The rows before `row`, and the rows from `row` on.
    ///
    /// # Panics
    /// If the block has fewer rows.
    #[must_use]
    #[allow(unsafe_code, reason = "the pointer of the second half")]
    pub fn split_at_row(self, row: usize) -> (ColumnBlock<'a, T>, ColumnBlock<'a, T>) {
        assert!(row <= self.n_rows, "row {row} of {}", self.n_rows);
        let first = if row == self.n_rows {
            self.first
        } else {
            // SAFETY: the row exists, so the pointer stays inside the matrix.
            unsafe { self.first.add(row * self.stride) }
        };
        let rest = ColumnBlock { first, n_rows: self.n_rows - row, columns: self.columns.clone(), ..self };
        (ColumnBlock { n_rows: row, ..self }, rest)
    }

    /// The rows `rows`, lent for as long as this block is borrowed.
    ///
    /// # Panics
    /// If the block does not have them.
    #[must_use]
    pub fn rows_mut(&mut self, rows: Range<usize>) -> ColumnBlock<'_, T> {
        let whole = ColumnBlock { columns: self.columns.clone(), exclusive: PhantomData, ..*self };
        whole.split_at_row(rows.end).0.split_at_row(rows.start).1
    }
}

impl<T> fmt::Debug for ColumnBlock<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColumnBlock").field("n_rows", &self.n_rows).field("columns", &self.columns).finish()
    }
}

/// A mutably borrowed matrix whose cells several threads take, each cell once.
///
/// ```
/// use tl_kernels::{Grid, Pool};
/// // Rows 0..1 and 1..3 of a matrix of four columns, in blocks of two columns.
/// let mut data = [0usize; 12];
/// let (cuts, grid) = ([0, 1, 3], Grid::new(&mut data, 4, &[0, 1, 3], 2));
/// Pool::new(2)?.run(2, &|_| {
///     while let Some((part, mut cell)) = grid.take() {
///         for row in 0..cell.n_rows() {
///             cell.row_mut(row).fill(cuts[part] + row);
///         }
///     }
/// });
/// assert_eq!(data, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]);
/// # Ok::<(), tl_kernels::Error>(())
/// ```
pub struct Grid<'a, T> {
    base: *mut T,
    width: usize,
    columns: Range<usize>,
    cuts: &'a [usize],
    block: usize,
    /// Cells that have been taken.
    taken: AtomicUsize,
    exclusive: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer comes from a `&mut [T]`, and each element is reached by one cell only, so sharing the grid sends
// elements to other threads and never shares one, which needs `T: Send` alone.
#[allow(unsafe_code, reason = "see the SAFETY comment")]
unsafe impl<T: Send> Sync for Grid<'_, T> {}

impl<'a, T: Send> Grid<'a, T> {
    /// Cuts `data` `[n, width]` before each of the ascending row numbers `cuts`, from the first to the last of them, and
    /// every `block` columns (the last block may be narrower).
    ///
    /// # Panics
    /// If `width` or `block` is 0, `data` is not a whole number of rows, or the cuts descend or leave the matrix.
    #[must_use]
    pub fn new(data: &'a mut [T], width: usize, cuts: &'a [usize], block: usize) -> Grid<'a, T> {
        Grid::of_columns(data, width, 0..width, cuts, block)
    }

    /// As [`Grid::new`], for some columns of the matrix.
    ///
    /// # Panics
    /// As [`Grid::new`], and if there are no such columns.
    #[must_use]
    pub fn of_columns(
        data: &'a mut [T],
        width: usize,
        columns: Range<usize>,
        cuts: &'a [usize],
        block: usize,
    ) -> Grid<'a, T> {
        assert!(width > 0 && block > 0, "columns and blocks need a width");
        assert!(columns.start <= columns.end && columns.end <= width, "the matrix has no such columns");
        assert_eq!(data.len() % width, 0, "data must hold whole rows");
        assert!(cuts.is_sorted() && cuts.last().is_none_or(|&end| end <= data.len() / width), "cuts must ascend");
        Grid {
            base: data.as_mut_ptr(),
            width,
            columns,
            cuts,
            block,
            taken: AtomicUsize::new(0),
            exclusive: PhantomData,
        }
    }

    /// Number of cells in the grid.
    #[must_use]
    pub fn n_cells(&self) -> usize {
        self.cuts.len().saturating_sub(1) * self.columns.len().div_ceil(self.block)
    }

    /// The next cell that was not taken yet, with the index of its row part. All columns of a part come before the next part.
    pub fn take(&self) -> Option<(usize, ColumnBlock<'_, T>)> {
        // The counter cannot overflow: each thread stops at its first `None`.
        let index = self.taken.fetch_add(1, Ordering::Relaxed);
        if index >= self.n_cells() {
            return None;
        }
        let per_part = self.columns.len().div_ceil(self.block);
        let (part, start) = (index / per_part, self.columns.start + index % per_part * self.block);
        let (rows, columns) = (self.cuts[part]..self.cuts[part + 1], start..self.columns.end.min(start + self.block));
        let first = if rows.is_empty() {
            self.base
        } else {
            // SAFETY: the row and the column exist in the matrix that `new` borrowed.
            #[allow(unsafe_code, reason = "the pointer of a cell")]
            unsafe {
                self.base.add(rows.start * self.width + start)
            }
        };
        // Cells differ in their rows or in their columns, and each index is drawn once.
        let cell = ColumnBlock { first, stride: self.width, n_rows: rows.len(), columns, exclusive: PhantomData };
        Some((part, cell))
    }
}

impl<T> fmt::Debug for Grid<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grid").field("width", &self.width).field("cuts", &self.cuts).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_cover_the_rows_between_the_cuts_once() {
        for (n, width, cuts, block) in
            [(1, 1, vec![0, 1], 1), (6, 10, vec![0, 1, 1, 4, 6], 4), (5, 8, vec![1, 4], 8), (3, 7, vec![], 2)]
        {
            let mut data = vec![0usize; n * width];
            let grid = Grid::new(&mut data, width, &cuts, block);
            let mut cells = 0;
            while let Some((part, mut cell)) = grid.take() {
                cells += 1;
                let columns = cell.columns();
                assert_eq!(cell.n_rows(), cuts[part + 1] - cuts[part]);
                for row in 0..cell.n_rows() {
                    for (value, column) in cell.row_mut(row).iter_mut().zip(columns.clone()) {
                        *value += (cuts[part] + row) * width + column + 1;
                    }
                }
            }
            assert_eq!(cells, grid.n_cells());
            assert!(grid.take().is_none());
            let inside = cuts.first().copied().unwrap_or(0)..cuts.last().copied().unwrap_or(0);
            for (i, &value) in data.iter().enumerate() {
                assert_eq!(value, if inside.contains(&(i / width)) { i + 1 } else { 0 });
            }
        }
    }

    #[test]
    fn cells_of_some_columns_leave_the_others_alone() {
        let mut data = [0usize; 24];
        let grid = Grid::of_columns(&mut data, 8, 2..7, &[0, 1, 3], 2);
        assert_eq!(grid.n_cells(), 6);
        while let Some((_, mut cell)) = grid.take() {
            (0..cell.n_rows()).for_each(|row| cell.row_mut(row).iter_mut().for_each(|value| *value += 1));
        }
        assert!(data.chunks(8).all(|row| row == [0, 0, 1, 1, 1, 1, 1, 0]));
    }

    #[test]
    fn rows_of_a_block_can_be_lent_and_split() {
        let mut data: Vec<usize> = (0..12).collect();
        let mut block = ColumnBlock::whole(&mut data, 5..8);
        assert_eq!((block.n_rows(), block.columns()), (4, 5..8));
        assert_eq!(block.rows_mut(1..3).row_mut(1), [6, 7, 8]);
        assert_eq!(block.rows_mut(4..4).n_rows(), 0);
        let (mut above, mut below) = block.split_at_row(1);
        above.row_mut(0)[0] = 90;
        below.row_mut(2)[2] = 91;
        assert_eq!((above.n_rows(), below.n_rows()), (1, 3));
        assert_eq!((data[0], data[11]), (90, 91));
    }

    #[test]
    #[should_panic(expected = "cuts must ascend")]
    fn cuts_outside_of_the_matrix_are_refused() {
        let _ = Grid::new(&mut [0u8; 6], 3, &[0, 3], 1);
    }
}
