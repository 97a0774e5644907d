//! Worker threads that wait for the next job: spinning for some microseconds, then asleep.
//!
//! A decoding step hands over hundreds of jobs of some tens of microseconds. Between two of them a worker spins, so
//! that it starts at once; after that time it sleeps and costs nothing. With more threads than processors workers do
//! not spin, because a spinning worker would take a processor from a thread that has work.
//!
//! ```text
//! state    | generation (32) | 0 | stop | open | workers inside (29) |
//!
//! caller   write the job, state = (generation + 1, open, 0), work, close, wait until no worker is inside
//! worker   wait for an open generation that is new, enter (inside + 1), work, leave (inside - 1)
//! ```
//!
//! A worker that comes too late finds the job closed and waits for the next one: the caller waits for the
//! workers inside, never for workers that have not woken up yet.
//!
//! **Invariant:** the job is written only while the state is closed and no worker is inside, and read only by workers
//! inside and by the caller.

use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How often a thread looks at the state before it sleeps or yields: for about a tenth of a millisecond.
const SPINS: u32 = 4000;

const INSIDE: u64 = (1 << 29) - 1;
const OPEN: u64 = 1 << 29;
const STOP: u64 = 1 << 30;
const GENERATION: u32 = 32;

/// A pointer to the closure of a job. The caller keeps the closure alive until no worker is inside.
type Task = *const (dyn Fn(usize) + Sync);

/// Worker threads and the state that they wait for.
pub(super) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// A field on a cache line of its own, so that one thread's writes do not slow down the readers of other fields.
#[repr(align(128))]
struct Line<T>(T);

struct Shared {
    state: Line<AtomicU64>,
    /// The next task to be done.
    next: Line<AtomicUsize>,
    job: UnsafeCell<Job>,
    /// Whether a caller is using the workers.
    taken: AtomicBool,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    /// The message of the first task that panicked.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    spins: u32,
}

#[derive(Clone, Copy)]
struct Job {
    task: Task,
    n_tasks: usize,
}

// SAFETY: all fields but `job` synchronise themselves. `job` is written by the one caller that has `taken`, while the
// state is closed and no worker is inside, and read by workers only after they entered an open state, which the caller
// published afterwards. The pointer in it leads to a `Sync` closure that outlives the job: see `Workers::run`.
#[allow(unsafe_code, reason = "the job is handed from the caller to the workers")]
unsafe impl Send for Shared {}
// SAFETY: as above.
#[allow(unsafe_code, reason = "the job is handed from the caller to the workers")]
unsafe impl Sync for Shared {}

impl Workers {
    /// `workers` threads besides the calling one.
    pub(super) fn new(workers: usize) -> std::io::Result<Workers> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared {
            state: Line(AtomicU64::new(0)),
            next: Line(AtomicUsize::new(0)),
            job: UnsafeCell::new(Job { task: &|_| (), n_tasks: 0 }),
            taken: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            panic: Mutex::new(None),
            spins: if workers < processors { SPINS } else { 0 },
        });
        let mut started = Workers { shared, threads: Vec::with_capacity(workers) };
        for index in 0..workers {
            let shared = started.shared.clone();
            let thread = std::thread::Builder::new().name(format!("tl-{}", index + 1));
            started.threads.push(thread.spawn(move || shared.serve())?);
        }
        Ok(started)
    }

    /// Calls `task(i)` once for each i in 0..`n_tasks` and returns when all are done; `false` when the workers are busy with
    /// another call (of another thread, or of the task that is calling) and nothing was done.
    ///
    /// # Panics
    /// If a task panics: with its message. Tasks that had not begun are left out then.
    pub(super) fn run(&self, n_tasks: usize, task: &(dyn Fn(usize) + Sync)) -> bool {
        let shared = &*self.shared;
        if shared.taken.swap(true, Ordering::Acquire) {
            return false;
        }
        // SAFETY: only the lifetime is forgotten. Workers use the pointer while they are inside, and this function
        // neither returns nor unwinds before it has closed the state and seen every worker leave.
        #[allow(unsafe_code, reason = "scoped threads that are not started anew for each scope")]
        let task: Task = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Task>(task) };
        // SAFETY: this thread has `taken`, and the state is closed and no worker is inside since the last job (or the start).
        #[allow(unsafe_code, reason = "see the invariant of this file")]
        unsafe {
            *shared.job.get() = Job { task, n_tasks };
        }
        shared.next.0.store(0, Ordering::Relaxed);
        let generation = (shared.state.0.load(Ordering::Relaxed) >> GENERATION).wrapping_add(1);
        shared.state.0.store(generation << GENERATION | OPEN, Ordering::SeqCst);
        if shared.sleepers.load(Ordering::SeqCst) > 0 {
            // A worker counted in `sleepers` holds the lock until it waits, so taking the lock once here guarantees
            // that no notify is lost.
            drop(shared.lock_sleep());
            shared.wake.notify_all();
        }
        shared.work();
        shared.close();
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        shared.taken.store(false, Ordering::Release);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        true
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.state.0.fetch_or(STOP, Ordering::SeqCst);
        drop(self.shared.lock_sleep());
        self.shared.wake.notify_all();
        for worker in self.threads.drain(..) {
            // A worker never unwinds, because the panics of tasks are caught.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The loop of a worker thread, until the pool is dropped.
    fn serve(&self) {
        let mut seen = 0;
        while let Some(state) = self.wait_for_job(seen) {
            if self.state.0.compare_exchange(state, state + 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                seen = state >> GENERATION;
                self.work();
                self.state.0.fetch_sub(1, Ordering::Release);
            }
        }
    }

    /// The state once it is open with another generation than `seen`; `None` when the pool is dropped.
    fn wait_for_job(&self, seen: u64) -> Option<u64> {
        let is_new = |state: u64| state & STOP != 0 || (state & OPEN != 0 && state >> GENERATION != seen);
        let result = |state: u64| (state & STOP == 0).then_some(state);
        for _ in 0..self.spins {
            let state = self.state.0.load(Ordering::Acquire);
            if is_new(state) {
                return result(state);
            }
            spin_loop();
        }
        let mut sleep = self.lock_sleep();
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        loop {
            let state = self.state.0.load(Ordering::SeqCst);
            if is_new(state) {
                self.sleepers.fetch_sub(1, Ordering::SeqCst);
                return result(state);
            }
            sleep = self.wake.wait(sleep).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Does tasks of the open job until none is left. Called by the caller and by workers that are inside.
    fn work(&self) {
        // SAFETY: the caller wrote the job before it opened the state, and writes no other before all inside have left.
        #[allow(unsafe_code, reason = "see the invariant of this file")]
        let Job { task, n_tasks } = unsafe { *self.job.get() };
        // SAFETY: `Workers::run` keeps the closure alive until no worker is inside.
        #[allow(unsafe_code, reason = "see `Workers::run`")]
        let task = unsafe { &*task };
        let done = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let index = self.next.0.fetch_add(1, Ordering::Relaxed);
                if index >= n_tasks {
                    break;
                }
                task(index);
            }
        }));
        if let Err(panic) = done {
            self.next.0.fetch_max(n_tasks, Ordering::Relaxed);
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
    }

    /// Closes the state, so that no further worker enters, and waits until no worker is inside.
    fn close(&self) {
        let mut state = self.state.0.fetch_and(!OPEN, Ordering::AcqRel);
        let mut looks = 0;
        while state & INSIDE != 0 {
            if looks < self.spins {
                looks += 1;
                spin_loop();
            } else {
                std::thread::yield_now();
            }
            state = self.state.0.load(Ordering::Acquire);
        }
    }

    fn lock_sleep(&self) -> MutexGuard<'_, ()> {
        self.sleep.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
