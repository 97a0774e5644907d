//! The dense dot product and its fused multiply-add, equal on every machine.
//!
//! **Invariant**: the order of every float operation is fixed. Element `i` of a dot product goes
//! to lane `i % 16`; the lanes are summed by one tree:
//!
//! ```text
//! lane   0  1  2  3  4  5  6  7 | 8  9 10 11 12 13 14 15
//!        +-- lanes[j] += lanes[j + 8] ---+
//!        then + 4, + 2, + 1; the sum is lanes[0]
//! ```
//!
//! ```
//! use ternary_core::{dot16, fma};
//!
//! assert_eq!(dot16(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]), 32.0);
//! // One rounding, not two: the product alone would round to 1.
//! let x = 1.0 + f32::EPSILON;
//! assert_eq!(fma(x, 1.0 - f32::EPSILON, -1.0), -(f32::EPSILON * f32::EPSILON));
//! ```

/// Partial sums of [`dot16`].
const LANES: usize = 16;

/// The dot product of `w` and `x`: 16 lanes of fused multiply-adds, then a fixed tree.
///
/// Every dense product of the workspace has these bits.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn dot16(w: &[f32], x: &[f32]) -> f32 {
    assert_eq!(w.len(), x.len(), "a dot product needs two slices of one length");
    let mut lanes = [0.0; LANES];
    for (w, x) in w.chunks(LANES).zip(x.chunks(LANES)) {
        for ((lane, &w), &x) in lanes.iter_mut().zip(w).zip(x) {
            *lane = fma(w, x, *lane);
        }
    }
    for step in [8, 4, 2, 1] {
        for j in 0..step {
            lanes[j] += lanes[j + step];
        }
    }
    lanes[0]
}

/// `a * b + c` with one rounding, as `f32::mul_add`, which `core` does not have.
///
/// The product of two f32 is exact in f64. The sum there is rounded *to odd*: where it is inexact, to the neighbour
/// whose last bit is 1. Such a value lies on no tie of f32, so that both roundings together give the result of a
/// single one (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to
/// odd", 2008).
#[inline]
#[must_use]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    let product = f64::from(a) * f64::from(b);
    let addend = f64::from(c);
    let sum = product + addend;

    // The exact error of the addition (Knuth's TwoSum).
    let without = sum - product;
    let error = (product - (sum - without)) + (addend - without);

    let bits = sum.to_bits();
    // A NaN error means that the sum is NaN or infinite, and nothing remains to be rounded.
    if error == 0.0 || error.is_nan() || bits & 1 == 1 {
        return sum as f32;
    }
    let away_from_zero = (error > 0.0) == (sum > 0.0);
    f64::from_bits(if away_from_zero { bits + 1 } else { bits - 1 }) as f32
}
