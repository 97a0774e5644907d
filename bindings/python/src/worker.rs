//! Work on a thread of its own, while the thread of Python waits without the interpreter's lock.
//!
//! **Invariant:** the waiting thread looks for signals every 20 ms. A signal whose handler raises stops the work, and the
//! call then raises what the handler raised.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use moe_runtime::Interrupt;
use pyo3::prelude::*;

use crate::errors::{locked, sentence};

/// Time between two looks for signals.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// Runs `work` to its end. A signal raises `interrupt`, and the call returns when the work has ended.
pub(crate) fn run<T: Send + 'static>(
    py: Python<'_>,
    interrupt: &Interrupt,
    work: impl FnOnce() -> T + Send + 'static,
) -> PyResult<T> {
    let mut done = start(work);
    let mut raised = None;
    loop {
        match py.detach(|| wait(&mut done)) {
            Waited::Done(result) => return raised.map_or(Ok(result), Err),
            Waited::Panicked => return Err(raised.unwrap_or_else(panicked)),
            Waited::Running => {
                if let Err(error) = py.check_signals() {
                    interrupt.raise();
                    raised.get_or_insert(error);
                }
            }
        }
    }
}

/// Runs `work`, which nothing can stop: a signal leaves it to end by itself, and what it made is dropped then.
pub(crate) fn run_or_leave<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send + 'static,
) -> PyResult<T> {
    let mut done = start(work);
    loop {
        match py.detach(|| wait(&mut done)) {
            Waited::Done(result) => return Ok(result),
            Waited::Panicked => return Err(panicked()),
            Waited::Running => py.check_signals()?,
        }
    }
}

/// The progress of a job: the stage, what is done and all there is to do.
type Progress = (&'static str, u64, u64);

/// Where a job tells its progress, and learns that it has to stop.
#[derive(Clone, Default)]
pub(crate) struct Reporter {
    /// The last progress of each stage that was not reported yet.
    news: Arc<Mutex<Vec<Progress>>>,
    stop: Arc<AtomicBool>,
}

/// Unwinds a job that has to stop. Its files are then as after a kill, and the same call resumes it.
struct Stopped;

impl Reporter {
    /// Tells the progress. Unwinds where the job has to stop.
    pub(crate) fn tell(&self, stage: &'static str, done: u64, total: u64) {
        if self.stop.load(Ordering::Relaxed) {
            resume_unwind(Box::new(Stopped));
        }
        let mut news = locked(&self.news);
        match news.last_mut() {
            Some(last) if last.0 == stage => *last = (stage, done, total),
            _ => news.push((stage, done, total)),
        }
    }

    fn report(&self, py: Python<'_>, on_progress: Option<&Py<PyAny>>) -> PyResult<()> {
        let news = std::mem::take(&mut *locked(&self.news));
        let Some(callback) = on_progress else { return Ok(()) };
        news.into_iter().try_for_each(|progress| callback.call1(py, progress).map(drop))
    }
}

/// Runs a job; `on_progress` gets its progress on the thread of Python. A signal, or an exception of the callback, stops the
/// job the next time that it tells its progress.
pub(crate) fn run_job<T: Send + 'static>(
    py: Python<'_>,
    on_progress: Option<&Py<PyAny>>,
    work: impl FnOnce(&Reporter) -> T + Send + 'static,
) -> PyResult<T> {
    let reporter = Reporter::default();
    let own = reporter.clone();
    let mut done = start(move || catch_unwind(AssertUnwindSafe(|| work(&own))));
    let mut raised: Option<PyErr> = None;
    loop {
        let waited = py.detach(|| wait(&mut done));
        if raised.is_none()
            && let Err(error) = py.check_signals().and_then(|()| reporter.report(py, on_progress))
        {
            reporter.stop.store(true, Ordering::Relaxed);
            raised = Some(error);
        }
        match (waited, raised.take()) {
            (Waited::Running, error) => raised = error,
            (_, Some(error)) => return Err(error),
            (Waited::Done(Ok(result)), None) => return Ok(result),
            (Waited::Done(Err(_)) | Waited::Panicked, None) => return Err(panicked()),
        }
    }
}

enum Waited<T> {
    Running,
    Done(T),
    Panicked,
}

fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (sender, done) = channel();
    // Where nobody waits any more, the result is dropped here.
    thread::spawn(move || drop(sender.send(work())));
    done
}

fn wait<T>(done: &mut Receiver<T>) -> Waited<T> {
    match done.recv_timeout(TICK) {
        Ok(result) => Waited::Done(result),
        Err(RecvTimeoutError::Timeout) => Waited::Running,
        Err(RecvTimeoutError::Disconnected) => Waited::Panicked,
    }
}

/// The exception of a defect in this package.
pub(crate) fn panicked() -> PyErr {
    sentence("the work ended by a defect of this package, which standard error names: please report it")
}
