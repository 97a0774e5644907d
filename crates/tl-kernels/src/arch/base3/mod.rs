//! The operations of each level on tiles of five trits per byte: one file per processor family's vector unit, over the
//! definition in `crate::base3`.

use super::Scalar;
use super::lut::{GROUP_ROWS, Lookup};
use crate::base3::Base3Simd;

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
mod avx2;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
mod avx512;

#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
mod neon;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[allow(unsafe_code, reason = "loads and stores of vectors")]
mod wasm;

impl Base3Simd for Scalar {
    #[inline(always)]
    fn store_rows(self, a: <Scalar as Lookup>::Rows, bytes: &mut [u8; GROUP_ROWS]) {
        *bytes = a;
    }
    #[inline(always)]
    fn triple_rows(self, a: <Scalar as Lookup>::Rows) -> <Scalar as Lookup>::Rows {
        a.map(|a| a.wrapping_mul(3))
    }
    #[inline(always)]
    fn add_trits(
        self,
        sums: <Scalar as Lookup>::Rows,
        fractions: <Scalar as Lookup>::Rows,
        unit: u8,
    ) -> <Scalar as Lookup>::Rows {
        let code = |fraction: u8| u8::from(fraction > 85) + u8::from(fraction > 170);
        std::array::from_fn(|r| sums[r].wrapping_add(unit.wrapping_mul(code(fractions[r]))))
    }
}
