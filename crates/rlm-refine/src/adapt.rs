//! Adaptation: what is added to a student whose trits stay as they are.
//!
//! ```text
//! micro_lora.rs   a product of two thin matrices that is added to one matrix: made from moments, or taught token by token
//! residual.rs     the product of least error on the moments of a matrix
//! networks.rs     the matrices of a layer, and the tokens that each network sees
//! layers.rs       the layers in order, on two residual streams
//! feedback.rs     what a session learns from corrections
//! ```
//!
//! **Invariant:** weights of the student are read, never changed; the result is an adapter file of its own.

mod error;
mod feedback;
mod layers;
mod micro_lora;
mod networks;
mod residual;

pub use error::AdaptError;
pub use feedback::{FeedbackOptions, HeadFeedback, Lesson};
pub use layers::{AdaptOptions, Adaptation, AdaptedLayer, adapt};
pub use micro_lora::MicroLora;
