//! The exact weighted least-squares ternary block.
use super::stored_scale;
use half::f16;
pub(super) fn quantize<const N: usize>(
    weights: &[f32; N],
    importance: Option<&[f32; N]>,
    trits: &mut [i8; N],
) -> f16 {
    let mut order: [usize; N] = core::array::from_fn(|i| i);
    order.sort_unstable_by(|&a, &b| weights[b].abs().total_cmp(&weights[a].abs()));
    let total: f32 = importance.map_or(1.0, |h| h.iter().sum());
    let h = |i: usize| {
        if total > 0.0 {
            importance.map_or(1.0, |h| f64::from(h[i]))
        } else {
            1.0
        }
    };
    let (mut p, mut n, mut best, mut scale) = (0.0, 0.0, 0.0, 0.0);
    for &i in &order {
        p += h(i) * f64::from(weights[i].abs());
        n += h(i);
        if n > 0.0 && p * p / n > best {
            best = p * p / n;
            scale = p / n;
        }
    }
    let stored = stored_scale(scale);
    for (t, &w) in trits.iter_mut().zip(weights) {
        *t = if f64::from(w.abs()) > 0.5 * stored.to_f64() {
            if w > 0.0 { 1 } else { -1 }
        } else {
            0
        };
    }
    stored
}
