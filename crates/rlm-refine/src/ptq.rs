//! Calibrated ternary quantisation: a layer at a time, on the activations of calibration texts.
//!
//! ```text
//! calibration.rs   texts -> windows of tokens                    spans.rs    fingerprints that tell texts apart
//! coverage.rs      windows that every expert sees tokens in    generations.rs  windows that the model writes
//! kept.rs          the windows of an unfinished job
//! calibrator.rs    the layers in order, resumable                streams.rs  residual streams of teacher and student
//! rounds.rs        the networks of a layer, shared by machines   networks.rs the networks of a layer
//! layer.rs         one layer: both streams through it            tensors.rs  its tensors     source.rs  as the runtime reads them
//! routes.rs        the tokens of each network
//! attention.rs     the matrices of its attention
//! network.rs       gate and up, then down, of one network        moments.rs  H = sum w x x'
//! problem.rs       one matrix, judged on held-out tokens         inputs.rs   its moments in the forms that this takes
//! rows.rs          codes and scales of rows                      search.rs   descent and kicks
//! quadratic.rs     the Hessian that all rows share               factor.rs   GPTQ       decompose.rs  H = U D U'
//! row_matrix.rs    products of rows, in a fixed order
//! ```
//!
//! The steps and what each buys are in `docs/quantisation.md`; [`Step`] names those that can be left out.
//!
//! **Invariant:** bytes depend on the checkpoint, the texts and the settings alone: not on threads, nor on the instruction
//! set, nor on where the job was stopped.

mod attention;
mod calibration;
mod calibrator;
mod coverage;
mod decompose;
mod error;
mod factor;
mod generations;
mod inputs;
mod kept;
mod layer;
mod moments;
mod network;
mod networks;
mod problem;
mod quadratic;
mod report;
mod rounds;
mod routes;
mod row_matrix;
mod rows;
#[cfg(test)]
pub(crate) mod samples;
mod search;
mod source;
mod spans;
mod steps;
mod streams;
mod tensors;

pub use calibration::{Calibration, NamedText, SourceReport, WindowOptions};
pub use calibrator::GptqOptions;
pub(crate) use calibrator::{CalibrationSetting, Calibrator, memory_bytes};
pub use error::PtqError;
pub(crate) use factor::Factor;
pub use kept::Unfinished;
pub(crate) use layer::{attend, check_finite, feed, inverse_square_lengths};
pub(crate) use moments::{CHUNK_TOKENS, Moments, product};
pub use report::{LayerReport, MatrixReport, NetworkReport, RoutingReport};
pub use rounds::CALIBRATION_JOB;
pub(crate) use rounds::Rounds;
pub(crate) use routes::{is_held_out, route};
pub(crate) use source::LayerTensors;
pub(crate) use spans::aligned_spans;
pub use spans::{CALIBRATION_SPANS, SPAN_TOKENS, spans};
pub use steps::{Step, Steps, UnknownStep};
pub(crate) use streams::Streams;
pub(crate) use tensors::{layer_of, ternary_layers};
