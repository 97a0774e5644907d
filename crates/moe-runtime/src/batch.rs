//! Many prompts from lines of JSON: each line becomes a request, groups of requests share the steps of the scheduler, and
//! each request becomes a line of JSON again.
//!
//! ```text
//! {"id":1,"prompt":"The sky"}  ──request──►  Job  ─┐
//! {"id":2,"messages":[...]}    ──request──►  Job  ─┼─ Scheduler ─►  {"id":1,"text":" is ...","finish_reason":"stop",...}
//! {"id":3,"promt":"The sky"}   ──request──►  error line            {"id":3,"error":{"line":3,"message":"..."}}
//! ```
//!
//! **Invariant:** an answer depends on its line, the model and the options alone: not on the lines beside it, the number of
//! slots, the threads, the time or the day.

mod answer;
mod error;
mod request;
mod runner;

pub use error::BatchError;
pub use runner::{BatchAnswer, BatchLine, BatchOptions, BatchRunner};
