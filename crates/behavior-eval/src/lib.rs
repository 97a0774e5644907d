//! Fidelity metrics and behavioural gates over any language model.
//!
//! A model is seen through [`LanguageModel`] only: tokens in, rows of logits out. [`fidelity`] compares a student with
//! its teacher on a text, [`perplexity`](mod@perplexity) scores one model, [`sparse`] stores a teacher's answers so that it need not
//! run again.
//!
//! **Invariant:** the same inputs give the same report, byte for byte, on every platform: sums are in `f64` and in a
//! fixed order, `exp` and `ln` are this crate's own, quantiles come from sorted values.
//!
//! **Invariant:** too little input is an error, never a figure.

pub mod artifact;
pub mod bootstrap;
pub mod error;
pub mod fidelity;
pub mod model;
pub mod perplexity;
pub mod routing;
pub mod scripted;
pub mod sparse;
pub mod stats;
pub mod subject;
pub mod trace;
pub mod window;

mod lockstep;
mod numeric;
mod row;

pub use artifact::{ArtifactSpec, TeacherArtifact};
pub use error::{Error, Result};
pub use fidelity::{FidelityReport, compare};
pub use model::{LanguageModel, ModelError};
pub use perplexity::{PerplexityReport, perplexity};
pub use routing::{RoutingGate, RoutingReport, RoutingTable};
pub use stats::{Estimate, Share};
pub use subject::{Answer, StopReason, Subject, SubjectInfo, Want};
pub use window::{FidelityConfig, Progress};
