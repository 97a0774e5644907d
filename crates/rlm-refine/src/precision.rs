//! The type of each class of tensors, searched within a byte budget.
//!
//! ```text
//! candidates.rs    the types that a class may have, their sizes        search.rs   all choices, best first
//! sensitivity.rs   the error that each of them causes                  table.rs    both, for reports and metadata
//! weights.rs       weights as a type stores them                       head.rs     errors of logits
//! memory.rs        the memory that this takes                          shares.rs   squared lengths
//! ```
//!
//! A class is all routed experts, all shared experts, the dense networks, the attention, the embedding or the head. A choice is one
//! type per class: there are at most 1,024 of them, so that all are tried, and the exact size of the file decides which fit.
//!
//! The error of a choice is the sum of those of its classes, each measured behind its layer with all other tensors as the teacher has
//! them. The divergence of the output's distribution would be a better measure, but it
//! takes a pass of the whole model for each class and type; here a layer of the teacher is visited once, and only the
//! matrices in question are computed again. The sum takes the errors of classes and layers to be independent, and one behind the
//! first layer to weigh as much as one behind the last.
//!
//! **Invariant:** the choice follows from the checkpoint, the texts and the budget alone, so that a resumed job finds it again.

mod candidates;
mod head;
mod memory;
mod search;
mod sensitivity;
mod shares;
mod table;
mod weights;

pub(crate) use candidates::Candidates;
pub(crate) use memory::memory_bytes;
pub(crate) use sensitivity::measure;
pub use table::{Candidate, ClassCandidates, PrecisionTable};
pub(crate) use weights::Weights;

use crate::ptq::Calibration;

/// A budget, and the tokens of its search.
#[derive(Clone, Debug)]
pub struct PrecisionOptions {
    /// Most bytes of the student.
    pub target_bytes: u64,
    /// The texts that errors are measured on.
    pub calibration: Calibration,
    /// Most of their tokens that are used, at even distances.
    pub max_tokens: usize,
}

impl PrecisionOptions {
    /// Tokens that are enough to tell the errors of classes apart.
    pub const TOKENS: usize = 4096;
}
