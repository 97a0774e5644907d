//! The number types of cached rows.

use half::f16;

use crate::simd::{LANES, Simd};

/// A number type of cached rows: f32 and f16. Sealed by the vector traits, which code outside of this crate cannot name.
pub trait Value: Copy + Send + Sync {
    /// Sixteen values as f32.
    fn load<S: Simd>(s: S, values: &[Self; LANES]) -> S::F;
    /// One value as f32.
    fn widen(self) -> f32;
}

impl Value for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, values: &[f32; LANES]) -> S::F {
        s.load(values)
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Value for f16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, values: &[f16; LANES]) -> S::F {
        s.load_half(values)
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}
