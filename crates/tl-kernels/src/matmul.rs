//! Matrix products `y = W x`.
//!
//! ```text
//! linear.rs      Linear: a layer of any kind of weights, and the work list that threads share (pieces.rs)
//! matrix.rs      dense weights: products of f32 (dense/), or of integers with INT8 activations (integer/)
//! rounded.rs     weights of f32 for activations that each product rounds, in the order of the original
//! ternary/       ternary weights, by the layout in which they lie
//! formats/       the types in which weights are stored, one file each
//! strided.rs     two matrices in f32, each as it lies or transposed
//! packing.rs     tiles of many layers in one arena
//! kind.rs        the names of the algorithms
//! ```

#[cfg(any(test, feature = "broken-kernel"))]
pub mod broken;
mod dense;
mod formats;
mod integer;
mod kind;
mod linear;
mod low_rank;
mod matrix;
mod packing;
mod pieces;
mod rounded;
pub mod strided;
mod ternary;

pub use formats::{Bf16, DenseFormat, DenseType, F16, F32, Q2_0, Q6K, Q8_0};
pub(crate) use integer::PANEL_FROM_TOKENS;
pub use kind::KernelKind;
pub use linear::{Linear, Product, forward_all};
pub use low_rank::LowRank;
pub use matrix::Dense;
pub use packing::pack_layers;
pub use rounded::Rounded;
pub(crate) use ternary::TABLE_ROWS;
pub use ternary::{BitLinear, LAYOUT_ID};
