//! Activations of ternary, Q8_0 and Q6_K layers: INT8 with one scale per block or per token, or plain f32.
//!
//! **Invariant**: a code lies in [-127, 127], never -128: the proofs of the kernels' integer bounds
//! rely on it.
//!
//! ```
//! use ternary_core::quantize_a8;
//!
//! let mut q = [0; 4];
//! let scale = quantize_a8(&[0.5, -2.54, 1.27, 0.05], &mut q);
//! assert_eq!(q, [25, -127, 64, 2]); // 63.5 and 2.5 are ties: to even
//! assert!((scale - 0.02).abs() < 1e-6);
//! ```

/// How the activations of a ternary product are represented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ActMode {
    /// Plain f32, without rounding: for reference runs.
    F32,
    /// INT8 with one scale per token and block of 256: the default.
    #[default]
    A8Block,
    /// INT8 with one scale per token: the BitNet rule.
    A8Token,
}

/// Largest magnitude of an INT8 activation code.
const MAX_CODE: f32 = 127.0;

/// Quantises `x` to INT8 codes `q`, `x ≈ scale * q`, and returns the scale `max|x| / 127`.
///
/// Codes are `x / scale` rounded half to even and clamped to ±127. The scale of an all-zero `x`
/// (or of one whose scale underflows) is 0, with all codes 0. A NaN or infinite activation makes
/// the scale NaN or infinite, so that it reaches the result instead of vanishing.
///
/// # Panics
/// If the lengths differ.
#[inline(always)] // a kernel that calls it compiles it with its own instructions
pub fn quantize_a8(x: &[f32], q: &mut [i8]) -> f32 {
    assert_eq!(x.len(), q.len(), "one code per activation");
    // Magnitudes order like their bits, and NaN above all.
    let max_bits = x.iter().map(|x| x.abs().to_bits()).max().unwrap_or(0);
    let scale = f32::from_bits(max_bits) / MAX_CODE;
    if scale == 0.0 {
        q.fill(0);
        return 0.0;
    }
    for (q, &x) in q.iter_mut().zip(x) {
        *q = round_half_even((x / scale).clamp(-MAX_CODE, MAX_CODE));
    }
    if !scale.is_finite() {
        // Division made the codes of finite activations 0; the codes of NaN and infinite ones have no meaning.
        q.fill(0);
    }
    scale
}

/// `x` rounded to an integer, ties to even; for |x| of at most 127.
#[inline(always)]
fn round_half_even(x: f32) -> i8 {
    // Adding 1.5 * 2^23 leaves no bits for a fraction: the addition itself rounds, and the lowest byte of the sum is
    // the integer. A cast by `as` saturates, which compilers do number by number.
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT).to_bits() as i8
}
