//! WASM SIMD128: a group of sixteen f32 is four vectors, a ternary block sixteen.
//!
//! **Invariant:** equal to the other levels to the bit. The platform has no fused multiply-add: [`fma4`] is the
//! emulation of `ternary_core::fma` on vectors, which costs about as much as ten plain multiply-adds.
//!
//! The level exists where the build has `-C target-feature=+simd128`: a module with an unknown instruction does not
//! load, so there is nothing to detect at run time.

mod int8;
mod integer;
mod lookup;
mod registers;
mod tile;
mod token;
mod trit_tile;
mod vector;

pub(in crate::arch) use token::Simd128;
