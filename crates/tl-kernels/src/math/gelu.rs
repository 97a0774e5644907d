//! The Gaussian error linear unit `x * (1 + erf(x / sqrt 2)) / 2`, the activation of BERT.
//!
//! With `a = |x|` and `Q = erfc(a / sqrt 2)` both signs have one formula without cancellation: `max(x, 0) - a Q / 2`. `Q` is the
//! approximation 7.1.26 of Abramowitz and Stegun, *Handbook of Mathematical Functions* (1964), whose error is at most 1.5e-7.
//!
//! **Invariant:** one fixed sequence of operations, equal on every level.

use std::f32::consts::FRAC_1_SQRT_2;

use super::scalar::exp_of;
use crate::arch::{Isa, Level};
use crate::error::Result;
use crate::simd::{Float, Kernel, LANES, One, Simd};

/// Replaces each value by its GELU; NaN stays NaN.
///
/// ```
/// let mut x = [0.0, 1.0, -1.0];
/// tl_kernels::math::gelu_in_place(&mut x);
/// assert!(x[0] == 0.0 && (x[1] - 0.841_345).abs() < 1e-6 && (x[2] + 0.158_655).abs() < 1e-6);
/// ```
pub fn gelu_in_place(x: &mut [f32]) {
    Level::current().run(Gelu(x));
}

/// As [`gelu_in_place`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn gelu_in_place_on(isa: Isa, x: &mut [f32]) -> Result<()> {
    isa.level()?.run(Gelu(x));
    Ok(())
}

#[inline(always)]
fn gelu_of<E: Float>(e: E, x: E::F) -> E::F {
    // Coefficients a5 .. a1 of the polynomial in t, and p of t = 1 / (1 + p z).
    const A: [f32; 5] = [1.061_405_4, -1.453_152, 1.421_413_8, -0.284_496_72, 0.254_829_6];
    const P: f32 = 0.327_591_1;

    let zero = e.splat(0.0);
    // Beyond 100 the tail is 0; the bound keeps infinity times 0 away. The operand order lets NaN through.
    let a = e.min(e.splat(100.0), e.max(e.sub(zero, x), x));
    let z = e.mul(a, e.splat(FRAC_1_SQRT_2));
    let t = e.div(e.splat(1.0), e.fma(z, e.splat(P), e.splat(1.0)));
    let mut q = e.splat(A[0]);
    for c in &A[1..] {
        q = e.fma(q, t, e.splat(*c));
    }
    let q = e.mul(e.mul(q, t), exp_of(e, e.sub(zero, e.mul(z, z))));
    e.sub(e.max(zero, x), e.mul(e.mul(a, e.splat(0.5)), q))
}

struct Gelu<'a>(&'a mut [f32]);

impl Kernel for Gelu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (chunks, rest) = self.0.as_chunks_mut::<LANES>();
        for x in chunks {
            s.store(gelu_of(s, s.load(x)), x);
        }
        for x in rest {
            *x = gelu_of(One, *x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `erf` from its Taylor series in f64: an independent computation.
    fn erf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    }

    #[test]
    fn gelu_is_the_gaussian_one() {
        for i in -500..=500 {
            let mut x = [i as f32 * 0.01];
            let wide = f64::from(x[0]);
            let expected = wide * (1.0 + erf(wide / 2f64.sqrt())) / 2.0;
            gelu_in_place(&mut x);
            assert!((f64::from(x[0]) - expected).abs() < 6e-7, "gelu({wide}) = {}, not {expected}", x[0]);
        }
    }

    #[test]
    fn gelu_at_the_edges() {
        let mut x = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e30, -1e30, 0.0];
        gelu_in_place(&mut x);
        assert_eq!((x[0], x[1], x[3], x[4], x[5]), (f32::INFINITY, 0.0, 1e30, 0.0, 0.0));
        assert!(x[2].is_nan());
    }

    #[test]
    fn gelu_has_the_same_bits_on_every_level() {
        let values: Vec<f32> = (0..37).map(|i| (i as f32 * 0.7).sin() * 6.0).collect();
        let mut expected = values.clone();
        gelu_in_place_on(Isa::Scalar, &mut expected).unwrap();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
            let mut x = values.clone();
            gelu_in_place_on(isa, &mut x).unwrap();
            assert_eq!(x, expected);
        }
    }
}
