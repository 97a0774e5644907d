//! Calibrated ternary quantisation: a layer at a time, on the activations of calibration texts.
//!
//! ```text
//! calibration.rs   texts -> windows of tokens                    spans.rs    fingerprints that tell texts apart
//! calibrator.rs    the layers in order, resumable                streams.rs  residual streams of teacher and student
//! layer.rs         one layer: attention, experts, routes         source.rs   its tensors as the runtime reads them
//! network.rs       gate and up, then down, of one network        moments.rs  H = sum w x x'
//! rows.rs          codes and scales of one row                   factor.rs   GPTQ       search.rs   descent and kicks
//! ```
//!
//! The steps and what each buys are in `docs/quantisation.md`; [`Step`] names those that can be left out.
//!
//! **Invariant:** bytes depend on the checkpoint, the texts and the settings alone: not on threads, nor on the instruction
//! set, nor on where the job was stopped.

mod calibration;
mod calibrator;
mod error;
mod factor;
mod layer;
mod moments;
mod network;
mod report;
mod rows;
#[cfg(test)]
mod samples;
mod search;
mod source;
mod spans;
mod steps;
mod streams;

pub use calibration::{Calibration, NamedText, SourceReport, WindowOptions};
pub use calibrator::GptqOptions;
pub(crate) use calibrator::{Calibrator, memory_bytes};
pub use error::PtqError;
pub use report::{LayerReport, MatrixReport, NetworkReport, RoutingReport};
pub use spans::{CALIBRATION_SPANS, SPAN_TOKENS, spans};
pub use steps::{Step, Steps, UnknownStep};
