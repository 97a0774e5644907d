//! How close a student's predictions on a text are to its teacher's.

mod comparison;
mod lockstep;
mod perplexity;
mod row;
mod window;

pub use comparison::{Divergence, Fidelity, FidelityReport, Flips, SCHEMA, compare};
pub use perplexity::{Perplexity, PerplexityReport, perplexity};
pub use window::{FidelityConfig, Progress};

pub(crate) use row::log_sum_exp;
