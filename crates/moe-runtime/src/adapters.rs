//! Adapters: low-rank additions to the matrices of a loaded model (LoRA, arXiv 2106.09685).
//!
//! ```text
//! adapter.gguf ──open.rs, file.rs──► pairs A, B per tensor ──set.rs──► AdapterSet, one LayerAdapter per layer
//!                                                                  │ slot.rs: read once per step, swapped between steps
//!                                                                  ▼
//!                                              forward/: y = W x + B (s A x), before SiLU and behind down;
//!                                                        x += B (s A n) beside the feed-forward part (sidecar.rs)
//! ```
//!
//! **Invariant:** an adapter adds to the outputs of a matrix or to the residual stream; weights stay as they are in the
//! file. The forward pass has the same bits without an adapter, with one whose factors are zero, and in a build without
//! this module.

pub(crate) mod error;
pub(crate) mod file;
pub(crate) mod layer;
pub(crate) mod open;
pub(crate) mod set;
pub(crate) mod sidecar;
pub(crate) mod slot;

pub use error::AdapterError;
pub use file::{AdapterFile, FactorPair};
pub use layer::{FfnAdapter, LayerAdapter};
pub use open::OpenAdapters;
pub use set::{AdapterSet, ScaledAdapter};
pub use sidecar::{SIDECAR, sidecar_layer, sidecar_name};
pub use slot::AdapterSlot;
