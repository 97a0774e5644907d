//! RMSNorm: `y = w x / sqrt(mean(x^2) + eps)`, row by row.

use tl_kernels::{Pool, math};

/// Rows that one task computes.
const TASK_ROWS: usize = 32;

/// The norm of every row of `x` `[n, weight.len()]`.
#[must_use]
pub fn rms_norm(pool: &Pool, x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let width = weight.len();
    let mut y = vec![0.0; x.len()];
    pool.chunks_mut(&mut y, TASK_ROWS * width, |task, rows| {
        for (i, row) in rows.chunks_exact_mut(width).enumerate() {
            math::rms_norm(&x[(task * TASK_ROWS + i) * width..][..width], weight, eps, row);
        }
    });
    y
}

/// The gradients of a norm.
#[derive(Debug)]
pub struct NormGradients<'a> {
    /// Of the input, `[n, width]`.
    pub d_x: &'a mut [f32],
    /// Of the weight, `[width]`; `None` where it is not wanted.
    pub d_weight: Option<&'a mut [f32]>,
}

/// Adds the gradients of [`rms_norm`] for the gradient `d_y` `[n, width]` of its output.
///
/// ```text
/// r = 1 / sqrt(mean(x^2) + eps)      d_x = r w d_y - x r^3 mean(w d_y x)      d_w = sum over rows of d_y x r
/// ```
pub fn rms_norm_backward(x: &[f32], weight: &[f32], eps: f32, d_y: &[f32], into: NormGradients<'_>) {
    let width = weight.len();
    let NormGradients { d_x, mut d_weight } = into;
    for ((x, d_y), d_x) in x.chunks_exact(width).zip(d_y.chunks_exact(width)).zip(d_x.chunks_exact_mut(width)) {
        let mean2 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / width as f64;
        let r = 1.0 / (mean2 + f64::from(eps)).sqrt();
        let along = x.iter().zip(weight).zip(d_y).map(|((&x, &w), &d)| f64::from(x) * f64::from(w) * f64::from(d));
        let pull = (along.sum::<f64>() / width as f64 * r * r * r) as f32;
        let r = r as f32;
        for (((d_x, &x), &w), &d) in d_x.iter_mut().zip(x).zip(weight).zip(d_y) {
            *d_x += r * w * d - pull * x;
        }
        if let Some(d_weight) = &mut d_weight {
            for ((d_w, &x), &d) in d_weight.iter_mut().zip(x).zip(d_y) {
                *d_w += d * x * r;
            }
        }
    }
}
