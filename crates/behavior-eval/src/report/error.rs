//! Errors of earlier reports and of the results in a model's metadata.

/// Earlier reports and results in a model's metadata that are refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its variant and its fields mean")]
pub enum ReportError {
    #[error("the baseline report is not usable: {reason}")]
    Baseline { reason: String },
    #[error(
        "the gate results in the model's metadata are damaged at `craftsman.gates.{name}`; evaluate the model again with --stamp"
    )]
    Stamp { name: &'static str },
}
