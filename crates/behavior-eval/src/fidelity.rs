//! How close a student's predictions on a text are to its teacher's.

mod comparison;
mod error;
mod lockstep;
mod perplexity;
mod records;
mod row;
mod window;

pub use comparison::{Divergence, Fidelity, Flips, SCHEMA, compare};
pub use error::FidelityError;
pub use perplexity::{Perplexity, perplexity};
pub use records::{TextCut, compare_record, fidelity_of, perplexity_of, score_record};
pub use window::{FidelityConfig, TextReport};
