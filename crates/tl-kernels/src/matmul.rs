//! Matrix products `y = W x`: which weights, which algorithm, which threads.

#[cfg(any(test, feature = "broken-kernel"))]
pub mod broken;
mod dense;
mod formats;
mod integer;
mod kind;
mod linear;
mod matrix;
mod packing;
mod pieces;
mod ternary;

pub use formats::{Bf16, DenseFormat, DenseType, F16, F32, Q6K, Q8_0};
pub(crate) use integer::PANEL_FROM_TOKENS;
pub use kind::KernelKind;
pub use linear::{Linear, Product, forward_all};
pub use matrix::Dense;
pub use packing::pack_layers;
pub(crate) use ternary::TABLE_ROWS;
pub use ternary::{BitLinear, LAYOUT_ID};
