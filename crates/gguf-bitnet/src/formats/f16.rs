//! F16 to F32 and back, without branches, so that loops over slices become vector code.
//!
//! ```text
//! F16: sign 1 | exponent 5, bias 15 | mantissa 10      F32: sign 1 | exponent 8, bias 127 | mantissa 23
//! ```

/// From this magnitude on, F16 rounds to infinity: halfway between the largest F16 and the next power of two.
pub(super) const F16_LIMIT: f32 = 65520.0;

/// The exact value of an F16.
#[inline(always)]
pub(super) fn f16_to_f32(half: u16) -> f32 {
    let half = u32::from(half);
    let sign = (half & 0x8000) << 16;
    let magnitude = (half & 0x7fff) << 13;
    let normal = magnitude + ((127 - 15) << 23);
    // Below 2^-14 the mantissa counts units of 2^-24.
    let subnormal = ((magnitude >> 13) as i32 as f32 * (1.0 / 16_777_216.0)).to_bits();
    let special = magnitude | 0x7f80_0000;
    let bits = if magnitude < 1 << 23 { subnormal } else { normal };
    let bits = if magnitude >= 31 << 23 { special } else { bits };
    f32::from_bits(sign | bits)
}

/// The nearest F16, ties to even; infinite where the magnitude is 65520 or more, and NaN stays NaN.
#[inline(always)]
pub(super) fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    // Normal results: add half a unit (less one bit for an even last place), drop 13 bits.
    let odd = magnitude >> 13 & 1;
    let normal = (magnitude.wrapping_sub((127 - 15) << 23).wrapping_add(0xfff + odd) >> 13) as u16;
    // Subnormal results: adding 0.5 leaves units of 2^-24 in the low mantissa bits, rounded to even.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits()) as u16;
    let result = if magnitude < (127 - 14) << 23 { subnormal } else { normal };
    let result = if magnitude >= F16_LIMIT.to_bits() { 0x7c00 } else { result };
    let result = if magnitude > 0x7f80_0000 { 0x7e00 } else { result };
    sign | result
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn every_f16_widens_as_the_standard_says() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (f16_to_f32(bits), f16::from_bits(bits).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()), "{bits:#06x}");
        }
    }

    #[test]
    fn narrowing_rounds_to_nearest_even() {
        // Around every F16 and every midpoint between two, then a walk over all exponents.
        for bits in 0..0x7c00u16 {
            let (low, high) = (f16::from_bits(bits).to_f32(), f16::from_bits(bits + 1).to_f32());
            let middle = if high.is_finite() { (low + high) / 2.0 } else { 65520.0 };
            for value in [low, middle] {
                for value in [value, value.next_up(), value.next_down(), -value] {
                    assert_eq!(f32_to_f16(value), f16::from_f32(value).to_bits(), "{value:e}");
                }
            }
        }
        for bits in (0..=u32::MAX).step_by(65_521) {
            let value = f32::from_bits(bits);
            let (ours, theirs) = (f32_to_f16(value), f16::from_f32(value).to_bits());
            let both_nan = value.is_nan() && f16::from_bits(ours).is_nan();
            assert!(ours == theirs || both_nan, "{value:e}: {ours:#06x} {theirs:#06x}");
        }
    }
}
