//! Errors in label thresholds and in the removal of evidence.

/// Label thresholds and removals of evidence that are refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its variant and its fields mean")]
pub enum LabelError {
    #[error(
        "{name}={value} is no label threshold; use disagreement or fragility with a number from 0 to 1, or redundancy \
         with one from 0 on"
    )]
    Threshold { name: String, value: f64 },
    #[error("a share of {fraction} of the chunks cannot be removed; use a number between 0 and 1")]
    Fraction { fraction: f64 },
    #[error("{fraction} of {chunks} chunks is less than one chunk; remove a larger share or use a larger suite")]
    NothingToRemove { fraction: f64, chunks: usize },
}
