//! The non-linear functions of the forward pass, equal on every level.
//!
//! **Invariant:** each function is one fixed sequence of IEEE operations. Sums over a slice use the lanes
//! and tree of `dot16`. No function of the C library is called.
//!
//! `exp(x) = 2^n * p(r)` with n = round(x / ln 2), r = x - n ln 2 (|r| <= 0.347) and p the Taylor
//! polynomial of degree 7, whose relative error 5e-9 is a tenth of an f32 rounding. The power of two is
//! applied in two halves, so that results down to the smallest subnormal are exact.

mod gelu;
mod layer_norm;
mod precise;
mod scalar;
mod slices;

pub use gelu::{gelu_in_place, gelu_in_place_on};
pub use layer_norm::LayerNorm;
pub use precise::{exp_f64, ln, pow, sin_cos};
pub use scalar::{exp, sigmoid, silu};
pub use slices::{
    argmax, exp_f64_in_place, exp_sum_in_place, exp_sum_in_place_on, rms_norm, rms_norm_on, scale_and_top,
    scale_and_top_on, scale_in_place, sigmoid_in_place, sigmoid_in_place_on, softmax_in_place, softmax_in_place_on,
    swiglu, swiglu_on,
};
