//! The length of all gradients together, bounded.

use crate::train::params::Params;

/// Scales all gradients so that their common length is at most `most`; returns the length before.
pub fn clip(params: &mut Params, most: f32) -> f64 {
    let squares = |g: &[f32]| g.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>();
    let length = params.list().iter().map(|param| squares(&param.gradient)).sum::<f64>().sqrt();
    let factor = f64::from(most) / (length + 1e-6);
    if factor < 1.0 {
        for param in params.list_mut() {
            param.gradient.iter_mut().for_each(|g| *g = (f64::from(*g) * factor) as f32);
        }
    }
    length
}
