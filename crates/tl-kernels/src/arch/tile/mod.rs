//! The tile operations of each level: one file per level, over the definition in `crate::tile`.

use super::Scalar;
use crate::tile::TileSimd;
#[cfg(any(target_arch = "aarch64", all(target_arch = "wasm32", target_feature = "simd128")))]
use crate::{
    tile::{TILE, TileBlock, TokenBlock},
    vector::Simd,
};

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
pub(super) mod avx512;

#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
mod neon;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;

impl TileSimd for Scalar {}

/// `acc = fma(scale * token.scale, (sums - token.sum) as f32, acc)` for all rows, by the operations that every level has.
#[cfg(any(target_arch = "aarch64", all(target_arch = "wasm32", target_feature = "simd128")))]
#[inline(always)]
fn finish<S: Simd>(s: S, block: &TileBlock, sums: &[i32; TILE], token: &TokenBlock<'_>, acc: &mut [f32; TILE]) {
    let mut ints = [0.0; TILE];
    for (int, sum) in ints.iter_mut().zip(sums) {
        *int = (sum - token.sum) as f32;
    }
    let (scales, _) = block.scales.as_flattened().as_chunks();
    for ((acc, ints), scales) in acc.as_chunks_mut().0.iter_mut().zip(ints.as_chunks().0).zip(scales) {
        let scales = s.mul(s.load_f16(scales), s.splat(token.scale));
        s.store(s.fma(scales, s.load(ints), s.load(acc)), acc);
    }
}
