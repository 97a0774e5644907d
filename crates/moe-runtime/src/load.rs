//! From a path to weights in memory, and the memory that they take.

pub(crate) mod error;
pub(crate) mod files;
pub(crate) mod loader;
pub(crate) mod memory_plan;
pub(crate) mod placement;
pub(crate) mod rows;
pub(crate) mod step_costs;
pub(crate) mod weight_reads;
pub(crate) mod weights;
