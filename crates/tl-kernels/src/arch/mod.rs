//! The instruction sets, one folder each, and the dispatch to them. All `unsafe` of the kernels is here.
//!
//! ```text
//! x86_64/avx2     x86_64/avx512     aarch64/neon     wasm32/simd128     scalar.rs (portable, defines the others)
//!   token.rs        proof that the machine has the instructions
//!   vector.rs       Float and Simd            tile.rs, trit_tile.rs, token_table.rs    ternary rows
//!   integer.rs      Q8_0, Q6_K, Q2_0 blocks   int8.rs    INT8 rows of a cache          lookup.rs    TL1 and TL2
//!   registers.rs    functions that these share
//! ```
//! A new instruction set of a known processor family is one folder, one line in `level.rs` and one name in `isa.rs`.
//!
//! **Invariant:** a token type (`Scalar`, `Avx2`, `Neon`, ..) has a private field and its constructor
//! returns it only where the hardware supports the level: holding one proves support.

mod instruction_set;
mod isa;
mod level;
mod methods;
mod scalar;

#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
mod aarch64;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[allow(unsafe_code, reason = "loads and stores of vectors")]
mod wasm32;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
mod x86_64;

pub use isa::Isa;
pub(crate) use level::Level;
pub(crate) use scalar::Scalar;

#[cfg(test)]
mod tests;
