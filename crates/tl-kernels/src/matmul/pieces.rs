//! The number of output rows in a piece of work.

use crate::simd::QUAD_ROWS;

/// Fewest multiply-adds of a task: handing over less costs more than it saves.
const MIN_TASK_MACS: usize = 1 << 16;

/// Tasks per thread, so that one thread that is interrupted does not make the others wait for long.
const TASKS_PER_THREAD: usize = 4;

/// Output rows per task for a matrix of `rows` whose rows take `row_macs` multiply-adds each.
pub(crate) fn rows_per_task(rows: usize, row_macs: usize, threads: usize) -> usize {
    if threads == 1 {
        return rows;
    }
    let even = rows.div_ceil(threads * TASKS_PER_THREAD);
    let worthwhile = MIN_TASK_MACS.div_ceil(row_macs.max(1));
    even.max(worthwhile).next_multiple_of(QUAD_ROWS)
}

/// Cells per thread of a product whose cells share no copies: each cell copies its part of the right matrix by itself.
const CELLS_PER_THREAD: usize = 2;

/// Rows of a cell are whole patches of every level.
const CELL_ROWS: usize = 12;

/// Where the rows of a product `[m, k, n]` are cut whose columns are cut every `block`.
pub(crate) fn row_cuts([m, k, n]: [usize; 3], block: usize, threads: usize) -> Vec<usize> {
    let parts = if threads == 1 { 1 } else { (CELLS_PER_THREAD * threads).div_ceil(n.div_ceil(block).max(1)) };
    let worthwhile = MIN_TASK_MACS.div_ceil(n.min(block).saturating_mul(k).max(1));
    let rows = m.div_ceil(parts).max(worthwhile).next_multiple_of(CELL_ROWS);
    (0..m).step_by(rows).chain([m]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_worthwhile_and_whole_tiles() {
        assert_eq!(rows_per_task(100, 10, 1), 100);
        assert_eq!(rows_per_task(2048, 2048, 2), 256);
        assert!(rows_per_task(64, 8, 8) >= 64, "too small to share out");
        assert_eq!(rows_per_task(1001, 1 << 20, 3) % QUAD_ROWS, 0);
    }

    #[test]
    fn rows_are_cut_where_columns_alone_are_too_few_cells() {
        assert_eq!(row_cuts([1024, 256, 256], 512, 1), [0, 1024]);
        assert_eq!(row_cuts([1024, 256, 256], 512, 2), [0, 264, 528, 792, 1024]);
        assert_eq!(row_cuts([256, 2048, 150_000], 512, 4), [0, 256]);
        assert_eq!(row_cuts([64, 8, 8], 512, 8), [0, 64], "too small to share out");
    }
}
