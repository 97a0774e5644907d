//! AdamW (arXiv 1711.05101): steps along the running mean of the gradient over the root of its running square.

use tl_kernels::math;

/// The constants of AdamW.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Decay of the mean.
    pub beta1: f32,
    /// Decay of the squares.
    pub beta2: f32,
    /// Added to the root.
    pub eps: f32,
    /// The share of a weight that a step at rate 1 takes away.
    pub weight_decay: f32,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 }
    }
}

impl AdamW {
    /// Step number `step`, counted from 1, at rate `lr`: changes `values` and the running `mean` and `squares`.
    pub fn step(&self, lr: f32, step: usize, values: &mut [f32], gradient: &[f32], [mean, squares]: [&mut [f32]; 2]) {
        let correction = |beta: f32| 1.0 - math::pow(f64::from(beta), step as f64);
        let rate = (f64::from(lr) / correction(self.beta1)) as f32;
        let root = correction(self.beta2).sqrt() as f32;
        let moments = mean.iter_mut().zip(squares);
        for ((value, &g), (mean, square)) in values.iter_mut().zip(gradient).zip(moments) {
            *value *= 1.0 - lr * self.weight_decay;
            *mean += (1.0 - self.beta1) * (g - *mean);
            *square = self.beta2 * *square + (1.0 - self.beta2) * g * g;
            *value -= rate * *mean / (square.sqrt() / root + self.eps);
        }
    }
}
