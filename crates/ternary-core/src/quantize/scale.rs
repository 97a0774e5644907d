//! The scale of a block in the precision that files store.

use half::f16;

/// `scale` as files store it: the nearest f16, half to even; a scale beyond the range becomes the largest finite f16.
///
/// `half::f16::from_f64` is not used: it rounds twice on processors that convert f32 to f16 themselves, so its result
/// depends on the machine.
///
/// ```
/// assert_eq!(ternary_core::stored_scale(1.0 / 3.0).to_f64(), 0.333251953125);
/// assert_eq!(ternary_core::stored_scale(1e9), half::f16::MAX);
/// ```
#[must_use]
pub fn stored_scale(scale: f64) -> f16 {
    f16::from_f32(round_to_odd(scale)).min(f16::MAX)
}

/// `value` as an f32 that rounds to the same f16: cut off, with an odd last bit where anything was cut, so that no value
/// falls on a midpoint between two f16 that it was not on.
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    if !nearest.is_finite() || f64::from(nearest) == value {
        return nearest;
    }
    let beyond = f64::from(nearest).abs() > value.abs();
    let cut = if beyond { f32::from_bits(nearest.to_bits() - 1) } else { nearest };
    f32::from_bits(cut.to_bits() | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside and on every midpoint between neighbouring f16, by less than an f32 can tell.
    #[test]
    fn a_scale_becomes_the_nearest_f16_and_half_goes_to_even() {
        for bits in 0..f16::MAX.to_bits() {
            let (low, high) = (f16::from_bits(bits), f16::from_bits(bits + 1));
            let middle = (low.to_f64() + high.to_f64()) / 2.0;
            let even = if bits % 2 == 0 { low } else { high };
            assert_eq!(stored_scale(middle), even, "between {low} and {high}");
            assert_eq!(stored_scale(f64::from_bits(middle.to_bits() - 1)), low);
            assert_eq!(stored_scale(f64::from_bits(middle.to_bits() + 1)), high);
            assert_eq!(stored_scale(low.to_f64()), low);
        }
        assert_eq!(stored_scale(f64::INFINITY), f16::MAX);
        assert_eq!(stored_scale(-1.0 - 1e-12), f16::NEG_ONE);
    }
}
