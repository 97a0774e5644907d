//! The instruction sets of WebAssembly.

mod simd128;

pub(super) use simd128::Simd128;
