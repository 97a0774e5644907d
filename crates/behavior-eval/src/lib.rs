//! Fidelity metrics and behavioural gates over any language model.
//!
//! Two kinds of measurement live here: gates on behaviour (a [`Suite`] of prompts, [`citations()`] and [`refusals()`]) and
//! fidelity to a teacher's predictions.
//!
//! For fidelity a model is seen through [`LanguageModel`] only: tokens in, rows of logits out. [`fidelity`] compares a
//! student with its teacher on a text, [`perplexity`](mod@perplexity) scores one model, [`sparse`] stores a teacher's
//! answers so that it need not run again.
//!
//! **Invariant:** the same inputs give the same report, byte for byte, on every platform: sums are in `f64` and in a
//! fixed order, `exp` and `ln` are this crate's own, quantiles come from sorted values.
//!
//! **Invariant:** too little input is an error, never a figure.

pub mod answered;
pub mod artifact;
pub mod bootstrap;
pub mod citations;
pub mod error;
pub mod evidence;
pub mod fidelity;
pub mod figure;
pub mod labels;
pub mod model;
pub mod perplexity;
pub mod perturb;
pub mod refusal;
pub mod regression;
pub mod repair;
pub mod report;
pub mod response;
pub mod routing;
pub mod run;
pub mod scripted;
pub mod ship;
pub mod sparse;
pub mod stamp;
pub mod stats;
pub mod subject;
pub mod suite;
pub mod trace;
pub mod window;

mod job;
mod json;
mod lockstep;
mod numeric;
mod random;
mod row;
mod words;

pub use answered::{Answered, GateConfig};
pub use artifact::{ArtifactSpec, TeacherArtifact};
pub use citations::{CitationFigures, CitationReport, JudgedCitation, PromptCitations, citations, judge_citations};
pub use error::{Error, Result};
pub use evidence::{Cluster, Evidence};
pub use fidelity::{FidelityReport, compare};
pub use figure::{Figure, IntervalKind};
pub use labels::{LabelReport, PromptLabel, Thresholds, labels};
pub use model::{LanguageModel, ModelError};
pub use perplexity::{PerplexityReport, perplexity};
pub use perturb::{FigureMove, Perturbation, Perturbed, Removal, Stability, perturb};
pub use refusal::{PromptRefusal, RefusalFigures, RefusalReport, RefusalSignals, judge_refusal, refusals};
pub use regression::{Baseline, Comparison};
pub use repair::{Repair, repairs};
pub use report::GateReport;
pub use routing::{RoutingGate, RoutingReport, RoutingTable};
pub use run::{GateRun, GateRunConfig};
pub use ship::{BehavioralGate, GateResult};
pub use stamp::Stamp;
pub use stats::{Estimate, Share};
pub use subject::{Answer, StopReason, Subject, SubjectInfo, Want};
pub use suite::{Chunk, ChunkKey, Label, Prompt, Suite, SuiteFault};
pub use window::{FidelityConfig, Progress};
