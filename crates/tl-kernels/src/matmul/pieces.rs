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
}
