//! Muon: the momentum of a matrix's gradient, made nearly orthogonal, is the step.
//!
//! ```text
//! M = mu M + (1 - mu) G        U = (1 - mu) G + mu M        X = U / |U|
//! five times: A = X X', X = 3.4445 X + (-4.775 A + 2.0315 A A) X
//! W = W (1 - lr decay) - lr sqrt(max(1, rows / cols)) X
//! ```
//! Source: K. Jordan, "Muon: an optimizer for hidden layers in neural networks" (2024).

use tl_kernels::Pool;
use tl_kernels::strided::{Mat, Out, multiply};

/// The coefficients of the iteration.
const COEFFICIENTS: [f32; 3] = [3.4445, -4.775, 2.0315];
const ITERATIONS: usize = 5;
/// Least length that a gradient is divided by.
const EPS: f64 = 1e-7;

/// The constants of Muon.
#[derive(Clone, Copy, Debug)]
pub struct Muon {
    /// Decay of the momentum.
    pub momentum: f32,
    /// The share of a weight that a step at rate 1 takes away.
    pub weight_decay: f32,
}

impl Default for Muon {
    fn default() -> Self {
        Self { momentum: 0.95, weight_decay: 0.0 }
    }
}

impl Muon {
    /// A step at rate `lr` of one matrix with rows of `cols` values: changes `values` and the `momentum`.
    pub fn step(&self, pool: &Pool, lr: f32, cols: usize, [values, momentum]: [&mut [f32]; 2], gradient: &[f32]) {
        let rows = values.len() / cols.max(1);
        let mix = |from: f32, to: f32, share: f32| from + share * (to - from);
        let mut update = Vec::with_capacity(gradient.len());
        for (m, &g) in momentum.iter_mut().zip(gradient) {
            *m = mix(*m, g, 1.0 - self.momentum);
            update.push(mix(g, *m, self.momentum));
        }
        let step = orthogonal(pool, &update, rows, cols);
        let rate = lr * (rows as f32 / cols.max(1) as f32).max(1.0).sqrt();
        for (value, step) in values.iter_mut().zip(&step) {
            *value = *value * (1.0 - lr * self.weight_decay) - rate * step;
        }
    }
}

/// A matrix near `x` `[rows, cols]` whose singular values are near 1.
fn orthogonal(pool: &Pool, x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let length = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt().max(EPS) as f32;
    let mut x: Vec<f32> = x.iter().map(|x| x / length).collect();
    // The square matrix A is as wide as the shorter side.
    let is_tall = rows > cols;
    let side = rows.min(cols);
    let [a, b, c] = COEFFICIENTS;
    for _ in 0..ITERATIONS {
        let (mut square, mut fourth, mut next) = (vec![0.0; side * side], vec![0.0; side * side], vec![0.0; x.len()]);
        let mat = Mat::new(&x, rows, cols);
        let (left, right) = if is_tall { (mat.t(), mat) } else { (mat, mat.t()) };
        multiply(pool, Out::to(&mut square, side), left, right);
        multiply(pool, Out::to(&mut fourth, side), Mat::new(&square, side, side), Mat::new(&square, side, side));
        let mixed: Vec<f32> = square.iter().zip(&fourth).map(|(a2, a4)| b * a2 + c * a4).collect();
        let mixed = Mat::new(&mixed, side, side);
        let (left, right) = if is_tall { (mat, mixed) } else { (mixed, mat) };
        multiply(pool, Out::to(&mut next, cols), left, right);
        next.iter_mut().zip(&x).for_each(|(next, x)| *next += a * x);
        x = next;
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::samples::Samples;

    #[test]
    fn singular_values_come_near_one_for_wide_and_tall_matrices() {
        for (rows, cols) in [(8, 20), (20, 8), (9, 9)] {
            let x = Samples::new(3).values(rows * cols);
            let o = orthogonal(&Pool::serial(), &x, rows, cols);
            // The mean of the squared singular values is the squared length over the shorter side.
            let mean = o.iter().map(|v| v * v).sum::<f32>() / rows.min(cols) as f32;
            assert!((0.6..1.4).contains(&mean), "{rows} x {cols}: {mean}");
        }
    }
}
