//! The report of a gate run, its formats, and its comparison with an earlier one.

mod baseline;
mod comparison;
mod error;
mod escape;
mod failures;
mod files;
mod gate_report;
mod html;
mod junit;
mod markdown;
mod page;
mod repair;
mod repaired;
mod sections;
mod stamp;
mod svg;

pub use baseline::{Baseline, MAX_BYTES};
pub use comparison::{Change, Comparison};
pub use error::ReportError;
pub use failures::{Failure, Misrouted, WorstPrompt};
pub use files::write_files;
pub use gate_report::{
    AnswerFidelity, Coherence, GateReport, LabelSource, ModelReport, PromptReport, Retention, RunFacts, SCHEMA,
    Settings, SuiteFacts,
};
pub use html::html;
pub use junit::junit;
pub use markdown::markdown;
pub use page::{Plot, Series};
pub use repair::{Repair, repairs};
pub use repaired::{Repaired, RepairedGate};
pub use stamp::Stamp;
pub use svg::svg;
