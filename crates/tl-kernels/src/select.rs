//! The choice of a kernel for each type of weights, made once per model at load.
//!
//! ```text
//! rule      the kernel asked for, or the default (KernelRegistry), on the level in force
//! trial     if allowed: the fastest of the levels, remembered per machine and file (trial.rs, memory.rs)
//! self-test the choice on real rows of the tensor; one level down until it equals the oracle (selftest.rs, oracle.rs)
//! ```
//!
//! **Invariant:** every type of weights, row length and layout is tested on a tensor of the file before a layer runs on
//! it, and all its layers get the same kernel. The choice changes speed, never results.
//!
//! ```
//! use tl_kernels::{KernelSelector, Linear, SelectorOptions};
//! let selector = KernelSelector::new(SelectorOptions::default());
//! let linear = selector.select(Linear::from_f32(1, 2, vec![1.0, 2.0])?)?;
//! assert_eq!(selector.choices()[0].isa, linear.isa());
//! # Ok::<(), tl_kernels::Error>(())
//! ```

mod memory;
mod oracle;
mod registry;
mod selector;
pub mod selftest;
mod trial;

pub use memory::TrialMemory;
pub use registry::KernelRegistry;
pub use selector::{KernelSelected, KernelSelector, Reason, SelectorOptions};
