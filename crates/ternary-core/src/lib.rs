//! Ternary weights: trits, blocks, packings, quantisers, error metrics and the scalar oracle.
//!
//! A ternary matrix stores each weight as a *trit* in {-1, 0, +1} and one scale per block of
//! [`BLOCK`] weights along the input dimension, so that `w ≈ trit * scale`. This crate defines
//! the meaning of the stored bits and of a product with them. It is written for reading, and every
//! fast kernel must reproduce its [`oracle`] bit for bit.
//!
//! **Invariant**: no input or output, no threads, no unsafe code, no float function whose result
//! depends on the platform.
//!
//! From weights to a product in four steps:
//!
//! ```
//! use ternary_core::{ActMode, Packing, Rounding, TernaryTensor, oracle};
//!
//! let weights: Vec<f32> = (0..2 * 256).map(|i| (i as f32 * 0.37).sin()).collect();
//! let w = TernaryTensor::quantize(Packing::Tq2_0, Rounding::LeastSquares, 2, 256, &weights, None)?;
//! assert_eq!(w.bytes().len(), 2 * 66);
//!
//! let x = vec![1.0; 256];
//! let mut y = [0.0; 2];
//! oracle::gemv(&w, &x, ActMode::A8Block, &mut y)?;
//!
//! let mut row = vec![0.0; 256];
//! w.dequantize_row(0, &mut row)?;
//! assert!((y[0] - row.iter().sum::<f32>()).abs() < 1e-3);
//! # Ok::<(), ternary_core::Error>(())
//! ```

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod activation;
mod block;
mod bytes;
mod dot;
mod error;
mod i2s;
mod metrics;
pub mod oracle;
mod packing;
pub mod q2_0;
mod quantize;
mod tensor;
mod trit;

pub use activation::{ActMode, quantize_a8};
pub use block::{BLOCK, TernaryBlock};
pub use bytes::Bytes;
pub use dot::{dot16, fma};
pub use error::{Error, Result};
pub use half::f16;
pub use i2s::I2sLayout;
pub use metrics::{ErrorMetrics, ErrorSums};
pub use packing::Packing;
pub use quantize::{Rounding, quantize_block, quantize_row, stored_scale};
pub use tensor::{Scales, TernaryTensor};

/// The examples of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
