//! The gates of a student: routing, citations and refusals.

mod citations;
mod record;
mod refusals;
mod routing;
mod ship;

pub use citations::{
    CitationFigures, CitationReport, CitationVerdict, ContestedCitations, JudgedCitation, PromptCitations, Span,
    citations, judge_citations,
};
pub use record::{Answered, GateConfig};
pub use refusals::{
    PromptRefusal, RefusalCounts, RefusalFigures, RefusalReport, RefusalSignals, judge_refusal, refusals,
};
pub use routing::{LayerFigures, PromptFigures, RoutingFigures, RoutingGate, RoutingReport};
pub use ship::{BehavioralGate, GateResult, GateThresholds, Outcome, Verdict};

pub(crate) use record::check_balance;
pub(crate) use routing::Cases;
