//! Runs loaded models for the evaluation: the traits of `behavior-eval`, implemented with `moe-runtime`.
//!
//! [`ModelSubject`] ([`StreamedSubject`] for models larger than memory) answers prompts and records routing for the behavioural
//! gates, [`TextScorer`] scores windows of text for the fidelity figures, and [`ForwardRecord`] holds the numbers inside one
//! forward pass. `behavior-eval` knows models only through its traits, and `moe-runtime` knows no evaluation; this room connects
//! the two.
//!
//! **Invariant:** positions run in batches, and the size of a batch changes no bit of a result.

mod answers;
mod error;
mod forward;
mod info;
mod recorder;
mod scorer;
mod streamed;
mod subject;

pub(crate) use answers::{Exchange, encode};
pub use error::{Error, Result};
pub use forward::{Column, ForwardRecord};
pub use info::subject_info;
pub use scorer::TextScorer;
pub use streamed::{GroupReport, StreamedOptions, StreamedSubject};
pub use subject::ModelSubject;
