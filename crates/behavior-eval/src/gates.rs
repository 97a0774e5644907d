//! The gates of a student: a table of figures with thresholds, and the measurements they are taken from.
//!
//! ```text
//! PromptRecord, one per prompt ── Measured ── TABLE ── GateResult, one per gate ── Verdict
//!                                 citations
//!                                 refusals
//!                                 routing
//! ```

mod citations;
mod error;
mod measured;
mod record;
mod refusals;
mod routing;
mod signals;
mod table;
mod thresholds;
mod verdict;

pub use citations::{CitationFigures, ContestedCitations};
pub use error::GateError;
pub use measured::Measured;
pub use record::{CitationVerdict, JudgedCitation, PromptRecord};
pub use refusals::{RefusalCounts, RefusalFigures};
pub use routing::{LayerFigures, RoutingFigures, RoutingGate, RoutingReport, agreement};
pub use signals::RefusalSignals;
pub use table::BehavioralGate;
pub use thresholds::GateThresholds;
pub use verdict::{GateResult, Outcome, Verdict};

pub(crate) use measured::check_balance;
pub(crate) use routing::Cases;
pub(crate) use table::Reads;
