//! CPU kernels for ternary and dense matrix products, activation quantisation and the thread pool.
//!
//! **Invariant:** the value a kernel gives for one (row, token) pair depends on that row and that token
//! alone: not on the number of tokens in the batch, the thread pool, or the instruction set. Dense dots
//! follow `ternary_core::dot16`, ternary rows follow `ternary_core::oracle`, bit for bit.
//!
//! How a product is made, from the outside in:
//!
//! ```text
//! Linear::forward            which weights (format.rs, bitlinear.rs) and which level (isa.rs)
//!   forward_all, pool::Grid  output rows are dealt out to threads, each block written by one
//!     gemm.rs | ternary.rs | lut_matrix.rs
//!                            the algorithm, once, generic over the vector traits of vector.rs
//!       arch/*.rs            what one vector operation is on this machine
//! ```
//!
//! ```
//! use tl_kernels::{ActivationBuffer, Linear, Pool};
//!
//! let linear = Linear::from_f32(2, 3, vec![1.0, 0.0, 2.0, 0.5, 0.5, 0.5])?;
//! let mut acts = ActivationBuffer::new();
//! acts.set(&[1.0, 2.0, 3.0], 1, 3);
//! acts.quantize(linear.act_mode());
//! let mut y = [0.0; 2];
//! linear.forward(&Pool::serial(), &acts, &mut y);
//! assert_eq!(y, [7.0, 3.0]);
//! # Ok::<(), tl_kernels::Error>(())
//! ```

pub mod math;
pub mod pool;

mod activations;
mod arch;
mod attention;
mod error;
mod machine;
mod matmul;
mod memory;
mod select;
mod simd;

pub use activations::ActivationBuffer;
pub use arch::Isa;
pub use attention::{columns, dense, int8, rows};
pub use error::{Error, Result};
pub use machine::{Cache, HardwareCaps, bandwidth};
#[cfg(any(test, feature = "broken-kernel"))]
pub use matmul::broken;
pub use matmul::{
    Bf16, BitLinear, Dense, DenseFormat, DenseType, F16, F32, KernelKind, LAYOUT_ID, Linear, Product, Q6K, Q8_0,
    forward_all, pack_layers,
};
pub use memory::Arena;
pub use pool::Pool;
pub use select::{KernelRegistry, KernelSelected, KernelSelector, Reason, SelectorOptions, TrialCache, selftest};

pub use ternary_core::{ActMode, BLOCK, Bytes, Packing, Scales, TernaryTensor};
