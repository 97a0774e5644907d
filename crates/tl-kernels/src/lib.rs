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

pub mod bandwidth;
#[cfg(any(test, feature = "broken-kernel"))]
pub mod broken;
pub mod columns;
pub mod dense;
pub mod int8;
pub mod math;
pub mod pool;
pub mod precise;
pub mod rows;
pub mod selftest;

mod activation;
mod aligned;
mod arch;
mod arena;
mod base3;
mod bitlinear;
mod caps;
mod error;
mod format;
mod gemm;
mod integer;
mod isa;
mod linear;
mod lut;
mod lut_matrix;
mod matrix;
mod packed;
mod registry;
mod select;
mod ternary;
mod tile;
mod tl1;
mod tl2;
mod token_table;
mod trial;
mod vector;

pub use activation::ActivationBuffer;
pub use arena::Arena;
pub use bitlinear::BitLinear;
pub use caps::{Cache, HardwareCaps};
pub use error::{Error, Result};
pub use format::{Bf16, DenseFormat, DenseType, F16, F32, Q6K, Q8_0};
pub use isa::Isa;
pub use linear::{Linear, Product, forward_all};
pub use matrix::Dense;
pub use packed::{LAYOUT_ID, pack_layers};
pub use pool::Pool;
pub use registry::{KernelKind, KernelRegistry};
pub use select::{KernelSelected, KernelSelector, Reason, SelectorOptions};
pub use trial::TrialCache;

pub use ternary_core::{ActMode, BLOCK, Bytes, Packing, Scales, TernaryTensor};
