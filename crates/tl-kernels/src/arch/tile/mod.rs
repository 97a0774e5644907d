//! The tile operations of each level: one file per level, over the definition in `crate::tile`.

use super::Scalar;
use crate::tile::TileSimd;

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
mod avx2;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
mod avx512;

impl TileSimd for Scalar {}

#[cfg(target_arch = "aarch64")]
impl<const DOTPROD: bool> TileSimd for super::neon::Neon<DOTPROD> {}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
impl TileSimd for super::wasm::Simd128 {}
