//! Adaptation: what is added to a student whose trits stay as they are.
//!
//! ```text
//! micro_lora.rs   a product of two thin matrices that is added to one matrix: made from moments, or taught token by token
//! residual.rs     the product of least error on the moments of a matrix
//! networks.rs     the matrices of a layer, and the tokens that each network sees
//! layers.rs       the layers in order, on two residual streams
//! feedback.rs     what a session learns from corrections
//! ewc.rs          a penalty on moves of numbers that matter for protected texts
//! grpo.rs         rewards of sampled answers in place of a teacher's predictions
//! ```
//!
//! **Invariant:** weights of the student's file are read, never changed; the result is a file of its own.

mod error;
mod ewc;
mod feedback;
mod grpo;
mod layers;
mod micro_lora;
mod networks;
mod residual;

pub use error::AdaptError;
pub use ewc::{EwcDrift, EwcOptions, EwcRegularizer, FisherKind};
pub use feedback::{FeedbackOptions, HeadFeedback, Lesson};
pub(crate) use grpo::PromptRewards;
pub use grpo::{GrpoFigures, GrpoOptimizer, GrpoOptions, HeldOutRewards, PolicyRule, Practice};
pub use layers::{AdaptOptions, Adaptation, AdaptedLayer, adapt};
pub(crate) use layers::{check_rank, check_rank_within};
pub use micro_lora::MicroLora;
