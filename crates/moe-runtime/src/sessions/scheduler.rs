//! Many jobs over one model: they wait in a fair queue, run in slots, and share every forward pass.
//!
//! ```text
//! threads of callers            thread of the scheduler
//! submit ──► JobQueue ──pop──►  slot 0: next token        ─┐
//!            fair, bounded      slot 1: 16 rows of prompt ─┼─►  one Step  ─►  events of each job
//!                               slot 2: next token        ─┘
//! ```
//!
//! The scheduler reads no clock: every call takes the time since some start, which decides how many rows of a prompt ride
//! along and when a refused caller may come back, never a token.
//!
//! **Invariant:** the tokens of a job are those that it would have alone, whatever else runs, waits or is cancelled.

mod fair_queue;
mod job;
mod job_queue;
mod limits;
mod report;
mod running;
mod slot;
mod speed;
mod steps;

pub use job::{AnswerOptions, Job, JobEvent, JobStart, OnJobEvent, Priority, Work};
pub use job_queue::{JobQueue, QueueStatus, Refusal};
pub use limits::QueueLimits;
pub use report::{SlotStatus, StepReport};
pub use steps::{Scheduler, SchedulerOptions};
