//! The BitNet b1.58 rule: `gamma = mean|w| + eps`, `t = round(clamp(w / gamma, -1, 1))`.
//!
//! Source: Ma et al., "The Era of 1-bit LLMs", 2024, section 2. The scale is stored as f16, the
//! trits follow from gamma before that rounding.

use half::f16;

use super::scale::stored_scale;

/// Keeps the division of an all-zero block defined; vanishes in f16.
const EPSILON: f64 = 1e-8;

pub(super) fn quantize<const N: usize>(weights: &[f32; N], trits: &mut [i8; N]) -> f16 {
    let sum: f64 = weights.iter().map(|w| f64::from(w.abs())).sum();
    let gamma = sum / N.max(1) as f64 + EPSILON;
    for (trit, &w) in trits.iter_mut().zip(weights) {
        // |w| / gamma rounds to 0 up to 0.5, half to even, and all above is clamped to 1.
        let nonzero = f64::from(w.abs()) > 0.5 * gamma;
        *trit = if nonzero { if w > 0.0 { 1 } else { -1 } } else { 0 };
    }
    stored_scale(gamma)
}
