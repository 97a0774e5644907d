//! Arithmetic on vectors of unit length.

use tl_kernels::dense::dot_f32;
use tl_kernels::math::scale_in_place;

/// Divides `v` by its Euclidean length. A vector of zeros, or one with a value that is not finite, becomes zeros.
pub fn normalise(v: &mut [f32]) {
    let squares = dot_f32(v, v);
    if squares > 0.0 && squares.is_finite() {
        scale_in_place(v, 1.0 / squares.sqrt());
    } else {
        v.fill(0.0);
    }
}

/// The cosine of the angle between two vectors of unit length.
///
/// # Panics
/// If their lengths differ.
#[must_use]
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    dot_f32(a, b).clamp(-1.0, 1.0)
}

/// Adds `y` to `x`, value by value.
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
