//! The types in which weights are stored, one file each.
//!
//! | file | implements |
//! |---|---|
//! | `f32.rs`, `f16.rs`, `bf16.rs` | [`DenseFormat`] |
//! | `q8_0.rs`, `q6_k.rs`, `q2_0.rs` | [`DenseFormat`], and [`IntegerFormat`] for INT8 activations |
//! | `tq2_0.rs`, `tq1_0.rs`, `bitnet_t158.rs` | [`TernaryFormat`] |

mod bf16;
mod bitnet_t158;
mod dense;
mod dense_type;
mod f16;
mod f32;
mod integer;
mod q2_0;
mod q6_k;
mod q8_0;
mod ternary;
mod tq1_0;
mod tq2_0;

pub use bf16::Bf16;
pub(crate) use bitnet_t158::T158;
pub use dense::DenseFormat;
pub(crate) use dense::row_bytes;
pub use dense_type::DenseType;
pub use f16::F16;
pub use f32::F32;
pub(crate) use integer::{IntegerFormat, RUN};
pub use q2_0::Q2_0;
pub use q6_k::Q6K;
pub use q8_0::Q8_0;
pub(crate) use ternary::{TernaryFormat, block_scale};
pub(crate) use tq1_0::Tq1;
pub(crate) use tq2_0::Tq2;
