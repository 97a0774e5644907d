//! The operations of token tables on each level: one file per level that gains by them, over the definition in
//! `crate::token_table`. With dot products of bytes tiles are faster; NEON and SIMD128 have not been measured.

use super::Scalar;
#[cfg(target_arch = "x86_64")]
use crate::tile::TILE;
use crate::token_table::TableSimd;

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
mod avx2;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
mod avx512;

/// Where the entries for a chunk lie in their tables, in bytes; two of 16 bits in each number.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Places {
    /// Of bytes 0 and 2 of each row.
    even: [u32; TILE],
    /// Of bytes 1 and 3 of each row.
    odd: [u32; TILE],
}

#[cfg(target_arch = "x86_64")]
impl Places {
    const NONE: Places = Places { even: [0; TILE], odd: [0; TILE] };
}

impl TableSimd for Scalar {}
#[cfg(target_arch = "aarch64")]
impl<const DOTPROD: bool> TableSimd for super::Neon<DOTPROD> {}
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
impl TableSimd for super::Simd128 {}
