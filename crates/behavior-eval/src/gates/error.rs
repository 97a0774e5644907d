//! Errors that keep gates from deciding.

use crate::suite::Label;

/// Input on which gates cannot decide.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each message says what its variant and its fields mean")]
pub enum GateError {
    #[error("there is no gate `{name}`; the gates are {names}")]
    Unknown { name: String, names: String },
    #[error("{value} is no threshold for {gate}; use a number from 0 to 1")]
    ThresholdOutOfRange { gate: &'static str, value: f64 },
    #[error("{gate} was not judged, and without it there is no verdict")]
    Missing { gate: &'static str },
    #[error("{gate} rests on {n} {unit}, fewer than {min}: no verdict; use a larger suite")]
    TooFewSamples { gate: &'static str, unit: &'static str, n: u64, min: u64 },
    #[error(
        "the suite has {resolved} resolved and {indeterminate} indeterminate prompts; the gates need both kinds, for one alone is passed by always or never refusing"
    )]
    OneSided { resolved: u64, indeterminate: u64 },
    #[error("the suite has {have} {label} prompts, but the gates need at least {need}; use a larger suite")]
    TooFewPrompts { label: Label, have: u64, need: u64 },
    #[error(
        "only {have} {label} prompts keep their label when evidence is taken away, but the gates need at least {need}; \
         take a smaller share, or use a larger suite"
    )]
    TooFewKeepLabel { label: Label, have: u64, need: u64 },
    #[error("line {line}: {reason}; write one phrase or `<tag>` per line")]
    RefusalSignal { line: u64, reason: &'static str },
    #[error(
        "prompt {prompt_id}: the teacher's routing is {teacher:?} and the student's {student:?} (layers, tokens, \
         experts per token); both must come from the same tokens and the same architecture"
    )]
    RoutingShape { prompt_id: String, teacher: [usize; 3], student: [usize; 3] },
    #[error("no token passed a router, so there is nothing to gate; give prompts and a model with experts")]
    NoCases,
}
