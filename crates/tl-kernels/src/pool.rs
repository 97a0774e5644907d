//! The thread pool: the calling thread and worker threads that wait for it.
//!
//! **Invariant:** every unit of work writes memory that no other unit of the same call can reach, so the result does
//! not depend on the number of threads. Only [`Pool::chunks_mut`] and the cells of a [`Grid`] hand out mutable memory,
//! and their `unsafe` code keeps the units apart.
//!
//! **Invariant:** handing over work allocates nothing.
//!
//! A call from inside a task, or from a second thread while the workers are busy, runs on the calling thread.

mod grid;
mod workers;

use std::fmt;

use crate::error::{Error, Result};
use workers::Workers;

pub use grid::{ColumnBlock, Grid};

/// Most threads a pool can have.
const MAX_THREADS: usize = 1024;

/// The threads that parallel work runs on. Callers pass a pool explicitly; there is no global one.
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
    workers: Option<Workers>,
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
    /// [`Error::ThreadCount`] outside 1..=1024, [`Error::ThreadPool`] when the system refuses.
    pub fn new(threads: usize) -> Result<Pool> {
        if threads == 1 {
            return Ok(Pool::serial());
        }
        if threads == 0 || threads > MAX_THREADS {
            return Err(Error::ThreadCount { got: threads, max: MAX_THREADS });
        }
        let workers = Workers::new(threads - 1).map_err(|source| Error::ThreadPool { threads, source })?;
        Ok(Pool { threads, workers: Some(workers) })
    }

    /// Number of threads, the calling one included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `task(i)` once for each i in 0..`n_tasks`, in any order, and returns when all are done.
    ///
    /// # Panics
    /// If a task panics: with the message of the first one, after all tasks that had begun have ended.
    pub fn run(&self, n_tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let shared_out = match &self.workers {
            Some(workers) if n_tasks > 1 => workers.run(n_tasks, task),
            _ => false,
        };
        if !shared_out {
            (0..n_tasks).for_each(task);
        }
    }

    /// Calls `f(i, chunk)` for consecutive chunks of `chunk` elements (the last may be shorter).
    ///
    /// # Panics
    /// If `chunk` is 0.
    pub fn chunks_mut<T: Send>(&self, data: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        assert!(chunk > 0, "chunks need a length");
        let chunks = Chunks { base: data.as_mut_ptr(), len: data.len() };
        self.run(data.len().div_ceil(chunk), &|index| {
            let start = index * chunk;
            let len = chunk.min(chunks.len - start);
            // SAFETY: `run` calls this once for each index, so the chunks are disjoint; they lie inside of `data`, which
            // this function has borrowed until `run` returns.
            #[allow(unsafe_code, reason = "disjoint chunks of one slice are written by several threads")]
            let part = unsafe { std::slice::from_raw_parts_mut(chunks.start(start), len) };
            f(index, part);
        });
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
        let cuts = [0, data.len().checked_div(width).unwrap_or(0)];
        let grid = Grid::new(data, width, &cuts, block);
        self.run(grid.n_cells(), &|_| {
            if let Some((_, cell)) = grid.take() {
                f(cell);
            }
        });
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads).finish()
    }
}

/// A mutably borrowed slice whose chunks several threads write.
struct Chunks<T> {
    base: *mut T,
    len: usize,
}

impl<T> Chunks<T> {
    /// The pointer to element `start`, which must not lie behind the end.
    fn start(&self, start: usize) -> *mut T {
        self.base.wrapping_add(start)
    }
}

// SAFETY: the pointer comes from a `&mut [T]`, and each element is reached by one task only, so sharing the chunks
// sends elements to other threads and never shares one, which needs `T: Send` alone.
#[allow(unsafe_code, reason = "see the SAFETY comment")]
unsafe impl<T: Send> Sync for Chunks<T> {}

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
        pool.run(4, &|_| {
            pool.run(4, &|_| {
                total.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert_eq!(total.load(Ordering::Relaxed), 16);
    }

    /// Jobs of every size, one right after the other, on more threads than most machines have: a lost wake-up would
    /// hang here, a job read too early or too late would miscount.
    #[test]
    fn many_jobs_in_a_row_are_all_done() {
        for (threads, jobs) in [(2, 20_000), (7, 2000)] {
            let pool = Pool::new(threads).unwrap();
            let done = AtomicUsize::new(0);
            let mut expected = 0;
            for job in 0..jobs {
                let n_tasks = job % 11;
                pool.run(n_tasks, &|i| {
                    done.fetch_add(i + 1, Ordering::Relaxed);
                });
                expected += n_tasks * (n_tasks + 1) / 2;
                assert_eq!(done.load(Ordering::Relaxed), expected, "{threads} threads, job {job}");
            }
        }
    }

    /// Sleeping workers wake up for the next job.
    #[test]
    fn a_pool_can_rest() {
        let pool = Pool::new(3).unwrap();
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            // Each of the three tasks waits for the two others, so three threads must be awake.
            let barrier = std::sync::Barrier::new(3);
            pool.run(3, &|_| {
                barrier.wait();
            });
        }
    }

    #[test]
    fn several_threads_may_share_a_pool() {
        let pool = Pool::new(2).unwrap();
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        pool.run(5, &|_| {
                            total.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 4 * 200 * 5);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_works_on() {
        for threads in [1, 2, 7] {
            let pool = Pool::new(threads).unwrap();
            for bad in [0, 37] {
                let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    pool.run(50, &|i| assert!(i != bad, "task {i} failed"));
                }));
                let message = *caught.unwrap_err().downcast::<String>().unwrap();
                assert_eq!(message, format!("task {bad} failed"));
                let mut data = [0u8; 20];
                pool.chunks_mut(&mut data, 3, |_, part| part.fill(1));
                assert_eq!(data, [1; 20]);
            }
        }
    }

    #[test]
    fn absurd_thread_counts_are_refused() {
        assert!(matches!(Pool::new(0), Err(Error::ThreadCount { got: 0, .. })));
        assert!(Pool::new(MAX_THREADS + 1).is_err());
    }
}
