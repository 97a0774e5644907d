//! The facts about this machine, and how fast its memory is.

pub mod bandwidth;
mod caps;

pub use caps::{Cache, HardwareCaps};
