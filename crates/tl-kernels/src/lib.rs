//! CPU kernels for ternary and dense matrix products, activation quantisation and the thread pool.
//!
//! **Invariant:** the value a kernel gives for one (row, token) pair depends on that row and that token
//! alone: not on the number of tokens in the batch, the thread pool, or the instruction set. Dense dots
//! follow `ternary_core::dot16`, ternary rows follow `ternary_core::oracle`, bit for bit.
//!
//! The rooms, from the bottom up; each imports those above it in this list:
//!
//! ```text
//! simd/          operations of a vector unit as traits, and the types that they work on
//! arch/          one folder per instruction set that implements them; Isa, Level: which one runs
//! memory/ pool/  buffers and arenas; threads and the parts of a matrix that they write
//! activations/   the inputs of products, quantised once for all readers
//! attention/     products with cached rows            math/   exp, softmax, normalisation
//! matmul/        Linear: products of dense and ternary weights
//! machine/       the facts of this machine, and how fast its memory is
//! select/        which kernel runs a layer: rule, timed trial, self-test against the oracle
//! ```
//! A product, from the outside in: [`Linear::forward`] deals out pieces of the output rows to the threads; for each piece
//! the algorithm of `matmul/`, written once over the traits of `simd/`, runs compiled for the level of the layer.
//!
//! The crate reads and writes no files but for the facts about the machine in `/sys` and `/proc`. The results of kernel
//! trials are a text that the caller keeps.
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

mod activations;
mod arch;
mod attention;
mod error;
mod machine;
mod matmul;
mod memory;
mod pool;
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
    Bf16, BitLinear, Dense, DenseFormat, DenseType, F16, F32, KernelKind, LAYOUT_ID, Linear, LowRank, Product, Q2_0,
    Q6K, Q8_0, Rounded, forward_all, pack_layers, strided,
};
pub use memory::Arena;
pub use pool::{ColumnBlock, Grid, Pool};
pub use select::{KernelRegistry, KernelSelected, KernelSelector, Reason, SelectorOptions, TrialMemory, selftest};

/// The examples of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
