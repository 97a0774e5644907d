//! Fidelity metrics and behavioural gates over any language model.
//!
//! ```text
//! suite ── labels ── gates ───┐
//!   model ── records ─────────┴── run ── report        bitnet eval-gates
//!   model ── fidelity                                  bitnet eval fidelity
//! ```
//! - [`suite`]: prompts with the chunks of text that an answer may cite; [`labels`]: which answer the chunks allow
//! - [`model`]: what a measurement needs of a model, and a scripted model for tests
//! - [`gates`]: the table of gates, and the measurements behind them: routing, citations, refusals
//! - [`records`]: teacher recordings, traces and the journal of an interrupted run
//! - [`run`]: a gate run from end to end; [`report`]: its result as JSON, JUnit, Markdown and HTML
//! - [`fidelity`]: a student's predictions beside its teacher's, token by token
//! - [`stats`]: figures with intervals
//!
//! **Invariant:** the same inputs give the same report, byte for byte, on every platform: sums are in `f64` and in a
//! fixed order, `exp` and `ln` are this crate's own, quantiles come from sorted values.
//!
//! **Invariant:** too little input is an error, never a figure.

pub mod fidelity;
pub mod gates;
pub mod labels;
pub mod model;
pub mod records;
pub mod report;
pub mod run;
pub mod stats;
pub mod suite;
pub mod text;

mod error;

pub use error::{Error, Result};

/// The examples of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
