//! A product of two thin matrices that is added to the output of one matrix: `y += B (A x)`.
//!
//! It is taught by the error of an output, `d = y - target`, or by any gradient of a loss by the output:
//!
//! ```text
//! dB = d (A x)'        dA = B' d x'        A -= rate dA        B -= rate dB
//! ```
//! Source: LoRA (arXiv 2106.09685, section 4.1); the update is plain gradient descent on `|y - target|^2 / 2`.
//!
//! **Invariant:** an update subtracts the gradient, so that a small enough step lowers the loss.

use moe_runtime::SplitMix64;
use tl_kernels::LowRank;
use tl_kernels::dense::{axpy_f32, dot_f32};

/// The factors of an addition to one matrix of `outputs` rows and `inputs` columns.
#[derive(Clone, Debug, PartialEq)]
pub struct MicroLora {
    inputs: usize,
    outputs: usize,
    rank: usize,
    /// The rows of `A`, `[rank, inputs]`.
    a: Vec<f32>,
    /// By rank: `[rank, outputs]`.
    b: Vec<f32>,
}

impl MicroLora {
    /// An addition of nothing that can be taught: random rows of `A` of length 1, and `B` of zeros.
    #[must_use]
    pub fn blank(inputs: usize, outputs: usize, rank: usize, seed: u64) -> MicroLora {
        let mut random = SplitMix64::new(seed);
        let spread = (12.0 / inputs.max(1) as f64).sqrt();
        let a = (0..rank * inputs).map(|_| ((random.next_f64() - 0.5) * spread) as f32).collect();
        MicroLora { inputs, outputs, rank, a, b: vec![0.0; rank * outputs] }
    }

    /// The addition of `B A` for `a` and `b` by rank, `[rank, inputs]` and `[rank, outputs]`.
    ///
    /// # Panics
    /// When the lengths are no whole number of rows, or of different ranks.
    #[must_use]
    pub fn new(inputs: usize, outputs: usize, a: Vec<f32>, b: Vec<f32>) -> MicroLora {
        let rank = a.len() / inputs;
        assert_eq!((a.len(), b.len()), (rank * inputs, rank * outputs), "factors of one rank");
        MicroLora { inputs, outputs, rank, a, b }
    }

    /// Number of rows of `A`.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The rows of `A` one after the other, `[rank, inputs]`.
    #[must_use]
    pub fn a(&self) -> &[f32] {
        &self.a
    }

    /// `B` as files have it, `[outputs, rank]`.
    #[must_use]
    pub fn b(&self) -> Vec<f32> {
        (0..self.outputs).flat_map(|o| self.b.iter().skip(o).step_by(self.outputs).copied()).collect()
    }

    /// The addition as the forward pass computes it.
    ///
    /// # Errors
    /// A matrix without rows or columns.
    pub fn low_rank(&self) -> Result<LowRank, tl_kernels::Error> {
        LowRank::new(self.inputs, self.outputs, &self.a, &self.b(), 1.0)
    }

    /// Adds the output for `x` `[inputs]` to `y` `[outputs]`.
    ///
    /// # Panics
    /// When a length differs.
    pub fn add(&self, x: &[f32], y: &mut [f32]) {
        for (a, b) in self.a.chunks_exact(self.inputs).zip(self.b.chunks_exact(self.outputs)) {
            axpy_f32(dot_f32(a, x), b, y);
        }
    }

    /// One step of gradient descent for the input `x` `[inputs]` and the gradient `d` `[outputs]` of a loss by the output.
    ///
    /// # Panics
    /// When a length differs.
    pub fn update(&mut self, x: &[f32], d: &[f32], rate: f32) {
        let rows = self.a.chunks_exact_mut(self.inputs).zip(self.b.chunks_exact_mut(self.outputs));
        for (a, b) in rows {
            // Both gradients are taken before either factor moves.
            let (by_b, by_a) = (dot_f32(a, x), dot_f32(b, d));
            axpy_f32(-rate * by_b, d, b);
            axpy_f32(-rate * by_a, x, a);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUTS: usize = 24;
    const OUTPUTS: usize = 17;

    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let mut random = SplitMix64::new(seed);
        (0..n).map(|_| random.next_f64() as f32 - 0.5).collect()
    }

    /// `|base + B A x - target|^2 / 2` and its gradient by the output.
    fn loss(lora: &MicroLora, x: &[f32], target: &[f32]) -> (f64, Vec<f32>) {
        let mut y = numbers(OUTPUTS, 77);
        lora.add(x, &mut y);
        let d: Vec<f32> = y.iter().zip(target).map(|(y, t)| y - t).collect();
        (d.iter().map(|d| f64::from(*d).powi(2)).sum::<f64>() / 2.0, d)
    }

    #[test]
    fn the_update_is_the_gradient_with_a_minus() {
        let (x, target) = (numbers(INPUTS, 1), numbers(OUTPUTS, 2));
        let start = MicroLora::new(INPUTS, OUTPUTS, numbers(2 * INPUTS, 3), numbers(2 * OUTPUTS, 4));
        let (_, d) = loss(&start, &x, &target);
        // With rate 1 the step is the negative gradient.
        let mut moved = start.clone();
        moved.update(&x, &d, 1.0);
        let gradient_a: Vec<f64> = start.a.iter().zip(&moved.a).map(|(s, m)| f64::from(s - m)).collect();
        let gradient_b: Vec<f64> = start.b.iter().zip(&moved.b).map(|(s, m)| f64::from(s - m)).collect();
        for seed in 10..18 {
            let (u, v) = (numbers(2 * INPUTS, seed), numbers(2 * OUTPUTS, seed + 100));
            let along: f64 =
                gradient_a.iter().zip(&u).chain(gradient_b.iter().zip(&v)).map(|(g, u)| g * f64::from(*u)).sum();
            let step = |h: f32| {
                let shifted = |values: &[f32], by: &[f32]| values.iter().zip(by).map(|(v, b)| v + h * b).collect();
                let at = MicroLora::new(INPUTS, OUTPUTS, shifted(&start.a, &u), shifted(&start.b, &v));
                loss(&at, &x, &target).0
            };
            let errors = [1e-1, 3e-2, 1e-2].map(|h| {
                let difference = (step(h) - step(-h)) / (2.0 * f64::from(h));
                (difference - along).abs() / along.abs().max(1e-3)
            });
            assert!(errors.iter().any(|e| *e <= 1e-3), "direction {seed}: {errors:?}");
        }
    }

    #[test]
    fn small_updates_lower_the_loss_and_reversed_ones_raise_it() {
        let (x, target) = (numbers(INPUTS, 1), numbers(OUTPUTS, 2));
        let mut lora = MicroLora::blank(INPUTS, OUTPUTS, 2, 5);
        let mut before = loss(&lora, &x, &target).0;
        assert!(lora.low_rank().unwrap().is_zero(), "a blank one adds nothing");
        for _ in 0..50 {
            let (_, d) = loss(&lora, &x, &target);
            let mut reversed = lora.clone();
            reversed.update(&x, &d, -0.1);
            assert!(loss(&reversed, &x, &target).0 > before);
            lora.update(&x, &d, 0.1);
            let after = loss(&lora, &x, &target).0;
            assert!(after < before, "{after} is not below {before}");
            before = after;
        }
        assert!(before < 0.5 * loss(&MicroLora::blank(INPUTS, OUTPUTS, 2, 5), &x, &target).0);
    }

    #[test]
    fn the_forward_pass_computes_the_same_addition() {
        let lora = MicroLora::new(INPUTS, OUTPUTS, numbers(2 * INPUTS, 3), numbers(2 * OUTPUTS, 4));
        let (x, mut y) = (numbers(INPUTS, 1), vec![0.0; OUTPUTS]);
        lora.add(&x, &mut y);
        let mut runtime = vec![0.0; OUTPUTS];
        lora.low_rank().unwrap().add_row(&x, 0..OUTPUTS, &mut runtime);
        assert_eq!(y, runtime);
    }
}
