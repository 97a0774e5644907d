//! The exponential, the sigmoid and SiLU, for one number or sixteen.

use std::f32::consts::{LN_2, LOG2_E};

use crate::simd::{Float, One};

/// e to the power `x`, within 1 ulp; 0 below -104, infinite above 88.73, NaN for NaN.
#[must_use]
pub fn exp(x: f32) -> f32 {
    exp_of(One, x)
}

/// The logistic function `1 / (1 + exp(-x))`.
#[must_use]
pub fn sigmoid(x: f32) -> f32 {
    sigmoid_of(One, x)
}

/// The activation `x * sigmoid(x)`.
#[must_use]
pub fn silu(x: f32) -> f32 {
    silu_of(One, x)
}

#[inline(always)]
pub(super) fn exp_of<E: Float>(e: E, x: E::F) -> E::F {
    // Coefficients 1/7! .. 1/1!, 1/0! of the Taylor series.
    const COEFFICIENTS: [f32; 8] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    // ln 2 = LN_2 + LN_2_REST to 48 bits.
    const LN_2_REST: f32 = -1.904_654_3e-9;

    // At the bounds the result is 0 and infinite already. The operand order lets NaN through.
    let x = e.min(e.splat(89.0), e.max(e.splat(-104.0), x));
    let n = e.round(e.mul(x, e.splat(LOG2_E)));
    let r = e.fma(n, e.splat(-LN_2), x);
    let r = e.fma(n, e.splat(-LN_2_REST), r);
    let mut p = e.splat(COEFFICIENTS[0]);
    for c in &COEFFICIENTS[1..] {
        p = e.fma(p, r, e.splat(*c));
    }
    let half = e.round(e.mul(n, e.splat(0.5)));
    e.mul(e.mul(p, e.pow2(half)), e.pow2(e.sub(n, half)))
}

#[inline(always)]
pub(super) fn sigmoid_of<E: Float>(e: E, x: E::F) -> E::F {
    let one = e.splat(1.0);
    e.div(one, e.add(one, exp_of(e, e.sub(e.splat(0.0), x))))
}

#[inline(always)]
pub(super) fn silu_of<E: Float>(e: E, x: E::F) -> E::F {
    e.mul(x, sigmoid_of(e, x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_one_ulp() {
        for i in -10_400..8_872 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            let ulp = f64::from((exact as f32).next_up() - exact as f32);
            assert!((f64::from(exp(x)) - exact).abs() <= ulp, "exp({x}) = {}, not {exact}", exp(x));
        }
    }

    #[test]
    fn exp_at_the_edges() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(88.8), f32::INFINITY);
        assert!(exp(88.72).is_finite());
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(-103.0), (-103.0f64).exp() as f32);
    }

    #[test]
    fn sigmoid_and_silu() {
        assert_eq!(sigmoid(0.0), 0.5);
        assert_eq!(sigmoid(-200.0), 0.0);
        assert_eq!(sigmoid(200.0), 1.0);
        assert!((silu(1.0) - 0.731_058_6).abs() < 1e-6);
    }
}
