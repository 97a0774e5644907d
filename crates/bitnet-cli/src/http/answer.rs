//! From a prompt to the parts of an answer.
//!
//! ```text
//! route ──Order──► Run::begin ──Job──► queue ──► engine thread
//!   ▲                                              │ tokens
//!   └── Happening ◄── channel ◄── Writer (text, stop strings, parser)
//! ```

mod ending;
mod happening;
mod order;
mod run;
mod scores;
mod vectors;
mod writer;

pub(crate) use ending::{Ending, Finish, Usage, cache_text};
pub(crate) use happening::Happening;
pub(crate) use order::{Caller, Form, Order, Rules};
pub(crate) use run::{Run, Whole, total_usage};
pub(crate) use scores::{Score, ScoreLists};
pub(crate) use vectors::{Way, vectors};
