//! The verbs, one file each.

pub(crate) mod adapt;
pub(crate) mod batch;
pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod distill;
pub(crate) mod doctor;
pub(crate) mod dump;
pub(crate) mod embed;
pub(crate) mod eval;
pub(crate) mod eval_gates;
pub(crate) mod export;
pub(crate) mod index;
pub(crate) mod inspect;
pub(crate) mod lessons;
pub(crate) mod man;
pub(crate) mod merge;
#[cfg(unix)]
pub(crate) mod offload;
pub(crate) mod quantize;
pub(crate) mod refine;
pub(crate) mod run;
#[cfg(feature = "serve")]
pub(crate) mod serve;
pub(crate) mod synth;
pub(crate) mod tokenize;
mod training;
pub(crate) mod tune;
pub(crate) mod verify;
