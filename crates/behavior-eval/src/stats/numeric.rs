//! `exp` and `ln` in `f64`, the same bits on every platform.
//!
//! Only additions, multiplications and divisions, in a fixed order; errors stay within about 1e-15 of the result. The
//! platform's own functions differ in the last place, and a report must not.

// ln 2 in two parts: the first has 21 trailing zero bits, so that a product with an exponent is exact.
const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// `1 / n!` for n in 0..=14.
const INVERSE_FACTORIALS: [f64; 15] = {
    let mut table = [1.0; 15];
    let mut n = 1;
    while n < table.len() {
        table[n] = table[n - 1] / n as f64;
        n += 1;
    }
    table
};

/// e to the power x.
pub(crate) fn exp(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x < -745.2 {
        return 0.0;
    }
    if x > 709.78 {
        return f64::INFINITY;
    }
    // x = k ln 2 + r with |r| <= ln 2 / 2
    let k = (x * std::f64::consts::LOG2_E).round();
    let r = (x - k * LN2_HIGH) - k * LN2_LOW;
    // The Taylor series up to r^14 / 14!; the rest is below 3e-19.
    let sum = INVERSE_FACTORIALS.iter().rev().fold(0.0, |sum, c| sum * r + c);
    // 2^k in two factors, so that results below the normal range are reached.
    let half = (k / 2.0).floor();
    sum * power_of_two(half) * power_of_two(k - half)
}

/// 2 to the power of a whole number in -1022..=1023.
fn power_of_two(k: f64) -> f64 {
    f64::from_bits(((k + 1023.0) as u64) << 52)
}

/// Natural logarithm of a positive normal number.
pub(crate) fn ln(x: f64) -> f64 {
    if x == 0.0 {
        return f64::NEG_INFINITY;
    }
    if !(x.is_normal() && x > 0.0) {
        return if x == f64::INFINITY { x } else { f64::NAN };
    }
    // x = m 2^e with m in [sqrt(1/2), sqrt 2)
    let bits = x.to_bits();
    let mut e = ((bits >> 52) & 0x7ff) as f64 - 1023.0;
    let mut m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if m >= std::f64::consts::SQRT_2 {
        m *= 0.5;
        e += 1.0;
    }
    // ln m = 2 artanh s = 2 (s + s^3/3 + s^5/5 + ...), |s| < 0.172
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let mut sum = 0.0;
    for n in (0..=12u8).rev() {
        sum = sum * z + 1.0 / f64::from(2 * n + 1);
    }
    e * LN2_HIGH + (2.0 * s * sum + e * LN2_LOW)
}

/// `ln sum exp` of a row of finite logits, ascending.
pub(crate) fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&z| exp(f64::from(z) - largest)).sum();
    largest + ln(sum)
}

#[cfg(test)]
mod tests {
    use super::{exp, ln};

    #[test]
    fn exp_and_ln_are_within_a_few_units_of_the_platform_s() {
        for i in -7000..7000i32 {
            let x = f64::from(i) * 0.1003;
            let want = x.exp();
            assert!((exp(x) - want).abs() <= 4e-16 * want.max(1e-292) * 4.0, "exp {x}: {} {want}", exp(x));
            let y = (f64::from(i) * 0.05).exp() * 1.37;
            assert!((ln(y) - y.ln()).abs() <= 4e-16 * y.ln().abs().max(1.0), "ln {y}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(ln(1.0), 0.0);
        assert_eq!(exp(-800.0), 0.0);
        assert_eq!(exp(f64::NEG_INFINITY), 0.0);
        assert_eq!(exp(800.0), f64::INFINITY);
        assert_eq!(ln(0.0), f64::NEG_INFINITY);
        assert!(ln(-1.0).is_nan() && exp(f64::NAN).is_nan());
        assert!(exp(-740.0) > 0.0);
    }

    /// The bits themselves, so that a platform that differs is noticed; e comes out one unit high.
    #[test]
    fn fixed_bits() {
        assert_eq!(exp(1.0).to_bits(), std::f64::consts::E.to_bits() + 1);
        assert_eq!(ln(2.0).to_bits(), std::f64::consts::LN_2.to_bits());
    }
}
