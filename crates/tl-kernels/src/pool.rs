//! The thread pool: a private rayon pool, or the calling thread alone.
//!
//! **Invariant:** every unit of work writes memory that no other unit of the same call can reach, so the
//! result does not depend on the number of threads. The two ways to hand out mutable memory,
//! [`Pool::chunks_mut`] and [`Pool::column_blocks`], are the only audited places where that is arranged.
//!
//! ```text
//! column_blocks over y [n, width]:     |--block 0--|--block 1--|-b2-|
//!                              row 0   |  task 0   |  task 1   | t2 |
//!                              row 1   |  task 0   |  task 1   | t2 |
//! ```

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use crate::error::{Error, Result};

/// Most threads a pool can have.
pub const MAX_THREADS: usize = 1024;

/// Where parallel work runs. Passed explicitly; there is no global pool.
///
/// ```
/// use tl_kernels::Pool;
/// let mut squares = [0usize; 10];
/// Pool::new(2)?.chunks_mut(&mut squares, 3, |chunk, values| {
///     for (i, value) in values.iter_mut().enumerate() {
///         *value = (3 * chunk + i).pow(2);
///     }
/// });
/// assert_eq!(squares[9], 81);
/// # Ok::<(), tl_kernels::Error>(())
/// ```
pub struct Pool {
    threads: usize,
    workers: Option<rayon::ThreadPool>,
}

impl Pool {
    /// A pool that runs everything on the calling thread.
    #[must_use]
    pub const fn serial() -> Pool {
        Pool { threads: 1, workers: None }
    }

    /// A pool of `threads` threads; one thread is the calling one.
    ///
    /// # Errors
    /// [`Error::ThreadCount`] outside 1..=[`MAX_THREADS`], [`Error::ThreadPool`] when the system refuses.
    pub fn new(threads: usize) -> Result<Pool> {
        if threads == 1 {
            return Ok(Pool::serial());
        }
        if threads == 0 || threads > MAX_THREADS {
            return Err(Error::ThreadCount { got: threads, max: MAX_THREADS });
        }
        let workers = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("tl-{index}"))
            .build()
            .map_err(|source| Error::ThreadPool { threads, source })?;
        Ok(Pool { threads, workers: Some(workers) })
    }

    /// Number of threads that work.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `f` inside the pool, so that every call on this pool below it starts without a hand-over. Wrap
    /// a whole decoding step in it.
    pub fn install<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match &self.workers {
            Some(workers) => workers.install(f),
            None => f(),
        }
    }

    /// Calls `task(i)` once for each i in 0..`n_tasks`, in any order, and returns when all are done.
    pub fn run(&self, n_tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        match &self.workers {
            Some(workers) if n_tasks > 1 => workers.install(|| {
                (0..n_tasks).into_par_iter().with_max_len(1).for_each(task);
            }),
            _ => (0..n_tasks).for_each(task),
        }
    }

    /// Calls `f(i, chunk)` for consecutive chunks of `chunk` elements (the last may be shorter).
    ///
    /// # Panics
    /// If `chunk` is 0.
    pub fn chunks_mut<T: Send>(&self, data: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        match &self.workers {
            Some(workers) if data.len() > chunk => workers.install(|| {
                data.par_chunks_mut(chunk).enumerate().with_max_len(1).for_each(|(index, part)| f(index, part));
            }),
            _ => {
                for (index, part) in data.chunks_mut(chunk).enumerate() {
                    f(index, part);
                }
            }
        }
    }

    /// Splits the columns of `data` `[n, width]` into blocks of `block` columns (the last may be narrower)
    /// and calls `f` once for each block, which may write those columns of every row.
    ///
    /// # Panics
    /// If `width` or `block` is 0, or `data` is not a whole number of rows.
    pub fn column_blocks<T: Send>(
        &self,
        data: &mut [T],
        width: usize,
        block: usize,
        f: impl Fn(ColumnBlock<'_, T>) + Sync,
    ) {
        assert!(width > 0 && block > 0, "columns and blocks need a width");
        assert_eq!(data.len() % width, 0, "data must hold whole rows");
        let matrix = SharedMatrix { base: data.as_mut_ptr(), n_rows: data.len() / width, width };
        self.run(width.div_ceil(block), &|index| {
            let start = index * block;
            let columns = start..width.min(start + block);
            f(ColumnBlock { matrix: &matrix, columns, exclusive: PhantomData });
        });
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads).finish()
    }
}

/// Exclusive access to a range of columns of every row of a matrix; made by [`Pool::column_blocks`].
pub struct ColumnBlock<'a, T> {
    matrix: &'a SharedMatrix<T>,
    columns: Range<usize>,
    exclusive: PhantomData<&'a mut T>,
}

impl<T> ColumnBlock<'_, T> {
    /// The columns of this block.
    #[must_use]
    pub fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// Number of rows of the matrix.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.matrix.n_rows
    }

    /// This block's columns of row `row`: element 0 is column `columns().start`.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    #[allow(unsafe_code, reason = "disjoint column ranges of one matrix are written by several threads")]
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.matrix.n_rows, "row {row} of {}", self.matrix.n_rows);
        let start = row * self.matrix.width + self.columns.start;
        // SAFETY: `start` and the length stay inside the `n_rows * width` elements that `column_blocks`
        // borrowed mutably for longer than `self` lives. Blocks are handed out once each with disjoint
        // column ranges, so no other block reaches these elements, and `&mut self` keeps this block from
        // having two of its rows borrowed at once.
        unsafe { std::slice::from_raw_parts_mut(self.matrix.base.add(start), self.columns.len()) }
    }
}

impl<T> fmt::Debug for ColumnBlock<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColumnBlock").field("columns", &self.columns).finish()
    }
}

/// A mutably borrowed matrix on its way to the threads that share it out.
struct SharedMatrix<T> {
    base: *mut T,
    n_rows: usize,
    width: usize,
}

// SAFETY: the pointer comes from a `&mut [T]`, and each element is reached by one `ColumnBlock` only, so
// sharing the matrix sends elements to other threads and never shares one: `T: Send` is what that needs.
#[allow(unsafe_code, reason = "see the SAFETY comment")]
unsafe impl<T: Send> Sync for SharedMatrix<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 7] {
            let pool = Pool::new(threads).unwrap();
            assert_eq!(pool.threads(), threads);
            let counts: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
            pool.run(100, &|i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            pool.run(0, &|_| unreachable!("no tasks"));
        }
    }

    #[test]
    fn column_blocks_cover_the_matrix_once() {
        for threads in [1, 2, 7] {
            let pool = Pool::new(threads).unwrap();
            for (n, width, block) in [(1, 1, 1), (3, 10, 4), (5, 8, 8), (2, 7, 100), (0, 4, 2)] {
                let mut data = vec![0usize; n * width];
                pool.column_blocks(&mut data, width, block, |mut part| {
                    let columns = part.columns();
                    for row in 0..part.n_rows() {
                        for (value, column) in part.row_mut(row).iter_mut().zip(columns.clone()) {
                            *value += row * width + column + 1;
                        }
                    }
                });
                assert!(data.iter().enumerate().all(|(i, &v)| v == i + 1));
            }
        }
    }

    #[test]
    fn nested_work_finishes() {
        let pool = Pool::new(2).unwrap();
        let total = AtomicUsize::new(0);
        pool.install(|| {
            pool.run(4, &|_| {
                pool.run(4, &|_| {
                    total.fetch_add(1, Ordering::Relaxed);
                });
            });
        });
        assert_eq!(total.load(Ordering::Relaxed), 16);
    }

    #[test]
    fn absurd_thread_counts_are_refused() {
        assert!(matches!(Pool::new(0), Err(Error::ThreadCount { got: 0, .. })));
        assert!(Pool::new(MAX_THREADS + 1).is_err());
    }
}
