//! How close a student's predictions on a text are to its teacher's.

mod comparison;
mod error;
mod lockstep;
mod perplexity;
mod row;
mod window;

pub use comparison::{Divergence, Fidelity, Flips, SCHEMA, compare};
pub use error::FidelityError;
pub use perplexity::{Perplexity, perplexity};
pub use window::{FidelityConfig, TextReport};
