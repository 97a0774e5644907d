//! Teacher to student: recipes, post-training quantisation, synthetic models.
//!
//! | room | contents |
//! |---|---|
//! | `recipe` | [`Recipe`]: the type that each tensor gets |
//! | `student` | [`StudentPlan`]: the file that follows from a recipe, and the units of work it is written in |
//! | `encode` | rows of weights to bytes of a file, in parallel, with the error this causes |
//! | `precision` | [`PrecisionOptions`]: a type per class of tensors, searched within a byte budget |
//! | `quantize` | [`Quantizer`]: a student made from a checkpoint |
//! | `pair` | whether two models are a teacher and its student |
//! | [`adapt`] | additions of low rank to a student whose trits stay as they are |
//! | `export` | a model with adapters folded into its weights |
//! | [`ptq`] | the calibrated method: trits and scales chosen on the activations of texts |
//! | [`lessons`] | what the reports of runs teach about a student, for [`policy`] |
//! | [`policy`] | what a run learned, kept for later ones |
//! | [`measure`] | the traits of `behavior-eval` over loaded models: answers, routing, logits, the numbers of a forward pass |
//! | [`train`] | forward and backward passes of a model, optimisers, and the runs that refine a student |
//! | [`synth`] | models of any size with seeded random weights |
//!
//! **Invariant:** routers, norms, biases, the embedding and the head are never ternary.

pub mod adapt;
mod encode;
mod error;
mod export;
pub mod lessons;
pub mod measure;
mod pair;
pub mod policy;
mod precision;
pub mod ptq;
mod quantize;
mod recipe;
mod student;
pub mod synth;
pub mod train;

pub use error::{Error, Result};
pub use export::{ExportError, ExportReport, FoldedTensor, export};
pub use precision::{Candidate, ClassCandidates, PrecisionOptions, PrecisionTable};
pub use quantize::{Method, OnProgress, QuantizeOptions, QuantizeReport, Quantizer, RoundsReport, Stage, TypeReport};
pub use recipe::{Assignment, Override, Preset, Reason, Recipe, RecipeError, Ternary};
pub use student::{PlannedTensor, StudentPlan};

/// The examples of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
