//! Arithmetic on f32, sixteen at a time in a kernel or one at a time in scalar code.

/// Arithmetic on some number of f32 at once (sixteen in a kernel, one in scalar code).
pub trait Float: Copy {
    /// The vector: sixteen f32, or one.
    type F: Copy;

    /// `x` in every element.
    fn splat(self, x: f32) -> Self::F;
    /// `a + b`, element by element.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`, element by element.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`, element by element.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`, element by element.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c` with one rounding
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `if a > b { a } else { b }`: `b` where either is NaN
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `if a < b { a } else { b }`: `b` where either is NaN
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The nearest integer, ties to even
    fn round(self, a: Self::F) -> Self::F;
    /// 2 to the power `a`, for integral `a` in -126..=127; unspecified for others
    fn pow2(self, a: Self::F) -> Self::F;
}

/// One f32: the scalar form of functions written over [`Float`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct One;

impl Float for One {
    type F = f32;

    #[inline(always)]
    fn splat(self, x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn add(self, a: f32, b: f32) -> f32 {
        a + b
    }
    #[inline(always)]
    fn sub(self, a: f32, b: f32) -> f32 {
        a - b
    }
    #[inline(always)]
    fn mul(self, a: f32, b: f32) -> f32 {
        a * b
    }
    #[inline(always)]
    fn div(self, a: f32, b: f32) -> f32 {
        a / b
    }
    #[inline(always)]
    fn fma(self, a: f32, b: f32, c: f32) -> f32 {
        fma(a, b, c)
    }
    #[inline(always)]
    fn max(self, a: f32, b: f32) -> f32 {
        if a > b { a } else { b }
    }
    #[inline(always)]
    fn min(self, a: f32, b: f32) -> f32 {
        if a < b { a } else { b }
    }
    #[inline(always)]
    fn round(self, a: f32) -> f32 {
        a.round_ties_even()
    }
    #[inline(always)]
    fn pow2(self, a: f32) -> f32 {
        f32::from_bits((((a as i32) + 127) as u32) << 23)
    }
}

/// `a * b + c` with one rounding: the machine's instruction where every target of the build has it,
/// otherwise the exact emulation.
#[inline(always)]
pub(crate) fn fma(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
        a.mul_add(b, c)
    } else {
        ternary_core::fma(a, b, c)
    }
}
