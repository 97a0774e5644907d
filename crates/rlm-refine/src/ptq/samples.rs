//! Correlated inputs and weights for tests, the same on every machine.

use moe_runtime::SplitMix64;

/// A problem of `n` columns.
pub(crate) struct Samples {
    n: usize,
    /// `sum x x' / tokens`, `[n, n]`.
    pub(crate) hessian: Vec<f64>,
    /// One row of inputs per token, `[tokens, n]`.
    pub(crate) inputs: Vec<f32>,
    /// A row of the teacher, `[n]`.
    pub(crate) weights: Vec<f32>,
}

impl Samples {
    /// Inputs that share a few factors, so that errors of one column can be made up for by others, far apart too.
    pub(crate) fn new(n: usize, seed: u64) -> Self {
        let mut rng = SplitMix64::new(seed);
        // The sum of four uniform numbers is close enough to a normal one.
        let mut normal = || (0..4).map(|_| rng.next_f64()).sum::<f64>() * 1.732 - 3.464;
        let (tokens, factors) = (2 * n, n / 8);
        let mix: Vec<f64> = (0..factors * n).map(|_| normal()).collect();
        let sizes: Vec<f64> = (0..n).map(|_| 0.3 + normal().abs()).collect();
        let mut inputs = Vec::with_capacity(tokens * n);
        for _ in 0..tokens {
            let shared: Vec<f64> = (0..factors).map(|_| normal()).collect();
            for i in 0..n {
                let common: f64 = shared.iter().zip(mix[i..].iter().step_by(n)).map(|(s, m)| s * m).sum();
                inputs.push((sizes[i] * (0.5 * normal() + common / (factors as f64).sqrt())) as f32);
            }
        }
        let weights = (0..n).map(|_| normal() as f32).collect();
        let mut hessian = vec![0.0; n * n];
        for x in inputs.chunks_exact(n) {
            for (row, &a) in hessian.chunks_exact_mut(n).zip(x) {
                row.iter_mut().zip(x).for_each(|(sum, &b)| *sum += f64::from(a) * f64::from(b) / tokens as f64);
            }
        }
        Self { n, hessian, inputs, weights }
    }

    /// The target `H w` of the row, `[n]`.
    pub(super) fn target(&self) -> Vec<f32> {
        let dot = |row: &[f64]| row.iter().zip(&self.weights).map(|(h, &w)| h * f64::from(w)).sum::<f64>();
        self.hessian.chunks_exact(self.n).map(|row| dot(row) as f32).collect()
    }
}
