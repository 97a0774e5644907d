//! The scale of a block in the precision that files store.

use half::f16;

/// `scale` as stored: the nearest f16; a scale beyond the range becomes the largest finite f16.
pub(super) fn stored_scale(scale: f64) -> f16 {
    f16::from_f64(scale).min(f16::MAX)
}
