//! Double-precision functions for rotary frequencies and angles, from basic IEEE operations only.
//!
//! **Invariant:** no function of the C library, no fused operation: equal on every platform, WASM included.

use std::f64::consts::{FRAC_PI_2, LN_2, LOG2_E, SQRT_2};

/// The natural logarithm of a positive `x`; NaN for negative `x`, -inf for 0.
///
/// x = m 2^e with m in [sqrt(1/2), sqrt(2)); ln m = 2 artanh(s) with s = (m - 1) / (m + 1), |s| <= 0.172.
#[must_use]
pub fn ln(x: f64) -> f64 {
    if x == 0.0 {
        return f64::NEG_INFINITY;
    }
    if x.is_nan() || x < 0.0 {
        return f64::NAN;
    }
    if x.is_infinite() {
        return x;
    }
    // Subnormals are lifted into the normal range first.
    let (x, lift) = if x < f64::MIN_POSITIVE { (x * 2f64.powi(54), -54.0) } else { (x, 0.0) };
    let bits = x.to_bits();
    let mut exponent = f64::from((bits >> 52) as u32) - 1023.0;
    let mut m = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if m >= SQRT_2 {
        m *= 0.5;
        exponent += 1.0;
    }
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    let mut series = 0.0;
    for k in (1..=23).rev().step_by(2) {
        series = series * s2 + 1.0 / f64::from(k);
    }
    (exponent + lift) * LN_2 + 2.0 * s * series
}

/// 1 / k! for k from 0 to 14: products with constants take a fraction of the time of divisions.
const EXP_SERIES: [f64; 15] = {
    let (mut terms, mut k) = ([1.0; 15], 1);
    while k < terms.len() {
        terms[k] = terms[k - 1] / k as f64;
        k += 1;
    }
    terms
};

/// e to the power `x`.
///
/// x = n ln 2 + r with |r| <= 0.347, then the Taylor series of degree 14.
#[must_use]
pub fn exp_f64(x: f64) -> f64 {
    exp_f64_of(x)
}

/// [`exp_f64`], compiled for the level of its caller.
#[inline(always)]
pub(super) fn exp_f64_of(x: f64) -> f64 {
    // ln 2 in two parts; the first has 32 bits, so its product with n is exact.
    const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

    // NaN passes through `clamp`, and the power of two of its exponent makes no number of it.
    let x = x.clamp(-746.0, 710.0);
    let n = (x * LOG2_E).round_ties_even();
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let p = EXP_SERIES.iter().rev().fold(0.0, |p, term| p * r + term);
    // In two halves: the whole power may lie outside the range of normal numbers.
    let half = (n as i32) / 2;
    p * power_of_two(half) * power_of_two(n as i32 - half)
}

/// `base` to the power `exponent`, for a positive `base`, to about 1e-14 relative.
#[must_use]
pub fn pow(base: f64, exponent: f64) -> f64 {
    exp_f64(exponent * ln(base))
}

/// (sine, cosine) of an angle in radians, correctly rounded but for rare ties; (NaN, NaN) when it is not
/// finite. Evaluated in f64 after a reduction to [-pi/4, pi/4] that is accurate for every f32.
#[must_use]
pub fn sin_cos(angle: f32) -> (f32, f32) {
    if !angle.is_finite() {
        return (f32::NAN, f32::NAN);
    }
    let (quarter, r) = if angle.abs() < SMALL_ANGLE { reduce_small(f64::from(angle)) } else { reduce_large(angle) };
    let (sin, cos) = (sin_series(r), cos_series(r));
    let (sin, cos) = match quarter {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    };
    (sin as f32, cos as f32)
}

/// Below this angle the two-part reduction is accurate.
const SMALL_ANGLE: f32 = (1 << 20) as f32;

/// Quarter turn (mod 4) and rest of an angle below [`SMALL_ANGLE`].
fn reduce_small(x: f64) -> (u32, f64) {
    // pi / 2 in two parts; the first has 33 bits, so its product with a quarter count of 20 bits is exact.
    const HIGH: f64 = 1.570_796_326_734_125_6;
    const LOW: f64 = 6.077_100_506_506_192e-11;
    let n = (x / FRAC_PI_2).round_ties_even();
    ((n as i64 & 3) as u32, (x - n * HIGH) - n * LOW)
}

/// The same for any finite angle of at least [`SMALL_ANGLE`], by integer arithmetic (Payne and Hanek 1983):
/// angle = m 2^e, so of 2/pi only a window of bits around 2^-e matters, the rest being whole turns.
fn reduce_large(angle: f32) -> (u32, f64) {
    // The bits of 2 / pi behind the point, in words of 32.
    const TWO_OVER_PI: [u32; 8] =
        [0xa2f9_836e, 0x4e44_1529, 0xfc27_57d1, 0xf534_ddc0, 0xdb62_9599, 0x3c43_9041, 0xfe51_63ab, 0xdebb_c561];
    let bits = angle.abs().to_bits();
    let mantissa = u128::from(bits & 0x7f_ffff | 0x80_0000);
    // angle = mantissa * 2^exponent with 0 <= exponent + 3 <= 107.
    let exponent = (bits >> 23) as i32 - 150;
    // Bits of 2/pi from 2 before the weight where mantissa * bit is 1 on: earlier ones give whole turns.
    let skip = usize::try_from(exponent - 2).unwrap_or(0);
    let mut window = 0u128;
    for i in 0..96 {
        let at = skip + i;
        let bit = TWO_OVER_PI[at / 32] >> (31 - at % 32) & 1;
        window = window << 1 | u128::from(bit);
    }
    // quarters = mantissa * window * 2^(exponent - skip - 96), as fixed point with `point` bits of fraction.
    let product = mantissa * window;
    let point = 96 + skip as i32 - exponent;
    let whole = (product >> point) as u32;
    let fraction = (product & ((1 << point) - 1)) as f64 / 2f64.powi(point);
    // Round to the nearest quarter.
    let (quarter, rest) = if fraction > 0.5 { (whole + 1, fraction - 1.0) } else { (whole, fraction) };
    let rest = rest * FRAC_PI_2;
    if angle < 0.0 { (quarter.wrapping_neg() & 3, -rest) } else { (quarter & 3, rest) }
}

/// sin r for |r| <= pi/4: Taylor to r^17.
fn sin_series(r: f64) -> f64 {
    let r2 = r * r;
    let mut sum = 1.0;
    for k in (2..=16).rev().step_by(2) {
        sum = 1.0 - sum * r2 / f64::from(k * (k + 1));
    }
    r * sum
}

/// cos r for |r| <= pi/4: Taylor to r^16.
fn cos_series(r: f64) -> f64 {
    let r2 = r * r;
    let mut sum = 1.0;
    for k in (1..=15).rev().step_by(2) {
        sum = 1.0 - sum * r2 / f64::from(k * (k + 1));
    }
    sum
}

/// 2^n for -1022 <= n <= 1023.
#[inline(always)]
fn power_of_two(n: i32) -> f64 {
    f64::from_bits(((n + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64, relative: f64) {
        assert!((got - expected).abs() <= relative * expected.abs(), "{got} is not {expected}");
    }

    #[test]
    fn ln_exp_and_pow_agree_with_the_c_library() {
        for i in 1..2000 {
            let x = f64::from(i) * 0.37;
            close(ln(x), x.ln(), 4e-15);
            close(ln(1.0 / x), (1.0 / x).ln(), 4e-15);
            close(exp_f64(x * 0.5), (x * 0.5).exp(), 1e-15);
            close(exp_f64(-x), (-x).exp(), 1e-15);
            close(pow(1e6, -f64::from(i) / 2000.0), 1e6f64.powf(-f64::from(i) / 2000.0), 1e-14);
        }
    }

    #[test]
    fn edges() {
        assert_eq!(ln(1.0), 0.0);
        assert_eq!(ln(0.0), f64::NEG_INFINITY);
        assert!(ln(-1.0).is_nan());
        close(ln(5e-324), (5e-324f64).ln(), 1e-15);
        assert_eq!(exp_f64(0.0), 1.0);
        assert_eq!(exp_f64(f64::NEG_INFINITY), 0.0);
        assert_eq!(exp_f64(f64::INFINITY), f64::INFINITY);
        assert_eq!(pow(1e4, 0.0), 1.0);
        assert!(sin_cos(f32::INFINITY).0.is_nan());
        assert_eq!(sin_cos(0.0), (0.0, 1.0));
    }

    #[test]
    fn sin_cos_is_right_at_every_magnitude() {
        let mut angle = 1e-6f32;
        while angle.is_finite() {
            for x in [angle, -angle] {
                let (sin, cos) = sin_cos(x);
                let (exact_sin, exact_cos) = f64::from(x).sin_cos();
                assert!((f64::from(sin) - exact_sin).abs() <= 6e-8 * exact_sin.abs(), "sin {x}: {sin}");
                assert!((f64::from(cos) - exact_cos).abs() <= 6e-8 * exact_cos.abs(), "cos {x}: {cos}");
            }
            angle *= 1.003;
        }
    }

    #[test]
    fn both_reductions_agree_where_they_meet() {
        for i in 0..1000 {
            let x = SMALL_ANGLE - 1.0 - i as f32 * 17.0;
            let (small, large) = (reduce_small(f64::from(x)), reduce_large(x));
            assert_eq!(small.0, large.0);
            assert!((small.1 - large.1).abs() < 1e-13);
        }
    }
}
