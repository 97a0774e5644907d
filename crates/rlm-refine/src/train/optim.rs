//! From gradients to steps.
//!
//! | file | contents |
//! |---|---|
//! | `adamw` | AdamW (arXiv 1711.05101) |
//! | `muon` | momentum of a matrix, made orthogonal by Newton-Schulz iterations |
//! | `clip` | the length of all gradients together, bounded |
//! | `schedule` | warm-up and cosine |
//! | `optimizer` | one rule per entry of the registry, with its state |

mod adamw;
mod clip;
mod muon;
mod optimizer;
mod schedule;

pub use adamw::AdamW;
pub use clip::clip;
pub use muon::Muon;
pub use optimizer::{Optimizer, OptimizerOptions, Rule};
pub use schedule::Schedule;
