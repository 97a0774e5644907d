//! The door to the scheduler: threads of callers submit, the thread of the scheduler takes.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::fair_queue::FairQueue;
use super::job::{Job, JobEvent};
use super::limits::{Accounts, QueueLimits};
use crate::sessions::generate::StopReason;

/// Shortest and longest time that a refused caller is asked to wait.
const RETRY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// A job that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// As many jobs wait as may.
    #[error("{waiting} requests wait already; try again in {} s", retry_after.as_secs())]
    Full {
        /// Jobs that wait, of all accounts together.
        waiting: usize,
        /// The time that they take, by the speed of earlier jobs.
        retry_after: Duration,
    },
    /// As many jobs of the account wait as may.
    #[error("{waiting} requests of this key wait already; try again in {} s", retry_after.as_secs())]
    AccountFull {
        /// Jobs of the account that wait.
        waiting: usize,
        /// The time that they take, by the speed of earlier jobs.
        retry_after: Duration,
    },
    /// The account has used its tokens.
    #[error("this key has used its {per_minute} tokens per minute; try again in {} s", retry_after.as_secs())]
    AccountTokens {
        /// The limit of the account, in computed tokens.
        per_minute: u64,
        /// The time until it may compute again.
        retry_after: Duration,
    },
    /// No more jobs are taken.
    #[error("the server is shutting down; send the request to another one")]
    Closed,
}

/// How many jobs there are, waiting and running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStatus {
    /// Jobs in the queue.
    pub waiting: usize,
    /// Jobs in slots, each of which computes in every step.
    pub running: usize,
}

/// A handle to the queue of a scheduler; clones are the same queue.
#[derive(Clone, Debug)]
pub struct JobQueue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: QueueLimits,
    slots: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    jobs: FairQueue<Job>,
    accounts: Accounts,
    running: usize,
    is_closed: bool,
    /// Seconds that a job takes in its slot, averaged over the last ones.
    job_seconds: Option<f64>,
}

impl JobQueue {
    /// The queue of a scheduler with so many slots.
    #[must_use]
    pub fn new(limits: QueueLimits, slots: usize) -> JobQueue {
        let (jobs, accounts) = (FairQueue::new(), Accounts::default());
        let state = Mutex::new(State { jobs, accounts, running: 0, is_closed: false, job_seconds: None });
        JobQueue(Arc::new(Shared { limits, slots: slots.max(1), state, changed: Condvar::new() }))
    }

    /// Puts a job in the queue.
    ///
    /// # Errors
    /// A [`Refusal`] that names the limit; the job is gone then.
    pub fn submit(&self, job: Job, now: Duration) -> Result<(), Refusal> {
        let mut state = self.lock();
        let limits = &self.0.limits;
        if state.is_closed {
            return Err(Refusal::Closed);
        }
        let account = state.accounts.of(&job.account);
        if let Some(wait) = account.wait_for_tokens(limits.account_tokens_per_minute, now) {
            let per_minute = limits.account_tokens_per_minute.unwrap_or_default();
            return Err(Refusal::AccountTokens { per_minute, retry_after: bounded(wait) });
        }
        if account.waiting >= limits.account_waiting {
            let waiting = account.waiting;
            return Err(Refusal::AccountFull { waiting, retry_after: state.time_of(waiting, self.0.slots) });
        }
        let waiting = state.jobs.len();
        if waiting >= limits.waiting {
            return Err(Refusal::Full { waiting, retry_after: state.time_of(waiting, self.0.slots) });
        }
        state.accounts.change(&job.account, |account| account.waiting += 1);
        // Sessions of different accounts may have one name.
        let (priority, key) = (job.priority, format!("{}\0{}", job.account, job.affinity));
        state.jobs.push(priority, &key, job);
        self.0.changed.notify_all();
        Ok(())
    }

    /// How many jobs there are, waiting and running.
    #[must_use]
    pub fn status(&self) -> QueueStatus {
        let state = self.lock();
        QueueStatus { waiting: state.jobs.len(), running: state.running }
    }

    /// Takes no more jobs from now on. Jobs that wait are still run.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.0.changed.notify_all();
    }

    /// Waits until there is a job; `false` when the queue is closed and empty.
    #[must_use]
    pub fn wait(&self) -> bool {
        let mut state = self.lock();
        while state.jobs.len() == 0 {
            if state.is_closed {
                return false;
            }
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Takes the next job, and those behind it that may run while all prompts together have at most `most_tokens` tokens; has them
    /// answered together, and counts their ends. Whether there was one. `now` is the clock of [`JobQueue::submit`]. For queues
    /// without a [`Scheduler`](super::Scheduler): that of a sentence encoder, for example.
    #[must_use]
    pub fn answer_next(&self, most_tokens: usize, now: impl Fn() -> Duration, answer: impl FnOnce(Vec<Job>)) -> bool {
        let begun = now();
        let (mut jobs, mut taken, mut left) = (Vec::new(), Vec::new(), usize::MAX);
        while let Some(job) = self.pop_within(left) {
            // Nothing is computed for a job that was interrupted while it waited.
            let tokens = if job.interrupt.is_raised() { 0 } else { job.prompt.len() };
            left = left.min(most_tokens).saturating_sub(tokens);
            taken.push((job.account.clone(), tokens));
            jobs.push(job);
        }
        if jobs.is_empty() {
            return false;
        }
        answer(jobs);
        let time = now().saturating_sub(begun) / taken.len() as u32;
        for (account, tokens) in taken {
            self.finished(&account, tokens as u64, time, now());
        }
        true
    }

    /// The next job whose account may have another one running; [`JobQueue::finished`] counts its end.
    #[must_use]
    pub(super) fn pop(&self) -> Option<Job> {
        self.pop_within(usize::MAX)
    }

    /// As [`JobQueue::pop`], among the jobs whose prompts have at most `most_tokens` tokens.
    fn pop_within(&self, most_tokens: usize) -> Option<Job> {
        let state = &mut *self.lock();
        let (accounts, limit) = (&state.accounts, self.0.limits.account_running);
        let may_run = |job: &Job| job.prompt.len() <= most_tokens && accounts.of(&job.account).running < limit;
        let job = state.jobs.pop(may_run)?;
        state.accounts.change(&job.account, |account| {
            account.waiting -= 1;
            account.running += 1;
        });
        state.running += 1;
        Some(job)
    }

    /// Ends the jobs that wait and were interrupted, or all that wait.
    pub(super) fn end_waiting(&self, all: bool) {
        let gone = {
            let state = &mut *self.lock();
            let gone = state.jobs.take_where(|job| all || job.interrupt.is_raised());
            for job in &gone {
                state.accounts.change(&job.account, |account| account.waiting -= 1);
            }
            gone
        };
        // Outside of the lock: owners may submit from here.
        for mut job in gone {
            let _ = (job.on_event)(JobEvent::Ended(StopReason::Interrupt));
        }
    }

    /// Counts the end of a job of `account` that was taken, and that used `tokens` and `time`.
    pub(super) fn finished(&self, account: &str, tokens: u64, time: Duration, now: Duration) {
        let state = &mut *self.lock();
        let limit = self.0.limits.account_tokens_per_minute;
        state.running -= 1;
        state.accounts.change(account, |account| account.running -= 1);
        state.accounts.charge(account, tokens, limit, now);
        state.accounts.forget_idle(limit, now);
        let seconds = time.as_secs_f64();
        state.job_seconds = Some(state.job_seconds.map_or(seconds, |mean| 0.8f64.mul_add(mean, 0.2 * seconds)));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock can panic but allocations, and the end of a job that was never taken.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The time until `waiting` jobs have left the queue, by the time that jobs took so far.
    fn time_of(&self, waiting: usize, slots: usize) -> Duration {
        let seconds = self.job_seconds.unwrap_or_default() * (waiting + 1) as f64 / slots as f64;
        bounded(Duration::try_from_secs_f64(seconds).unwrap_or(RETRY[1]))
    }
}

/// Whole seconds within [`RETRY`], rounded up.
fn bounded(time: Duration) -> Duration {
    let up = Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0));
    up.clamp(RETRY[0], RETRY[1])
}
