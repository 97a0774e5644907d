//! Differences of a loss along random directions, beside its gradient.

use moe_runtime::SplitMix64;

/// Directions that are tried.
const DIRECTIONS: u64 = 8;
/// Steps along a direction, of which the best counts: a long one is inexact, a short one drowns in rounding.
const STEPS: [f32; 3] = [3e-2, 1e-2, 3e-3];
/// Changes of a model's loss that a step is to make, of which the best counts for the same reason.
const CHANGES: [f32; 3] = [3e-2, 1e-2, 3e-3];
/// The largest relative error that passes.
const TOLERANCE: f64 = 1e-3;

/// `n` numbers of mean 0 and deviation 1.
pub(crate) fn samples(seed: u64, n: usize) -> Vec<f32> {
    let mut rng = SplitMix64::new(seed);
    (0..n).map(|_| ((0..12).map(|_| rng.next_f64()).sum::<f64>() - 6.0) as f32).collect()
}

pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Checks `gradient` at `x` against `loss`, with steps relative to the size of `x`.
pub(crate) fn assert_gradient(what: &str, x: &[f32], gradient: &[f32], loss: impl Fn(&[f32]) -> f64) {
    let size = (dot(x, x) / x.len() as f64).sqrt().max(1e-3) as f32;
    assert_directions(what, [x, gradient], |_| STEPS.map(|step| step * size), loss);
}

/// As [`assert_gradient`], with steps that change the loss by about as much whatever the number of values.
pub(crate) fn assert_model_gradient(what: &str, x: &[f32], gradient: &[f32], loss: impl Fn(&[f32]) -> f64) {
    assert_directions(what, [x, gradient], |derivative| CHANGES.map(|change| change / derivative.abs() as f32), loss);
}

fn assert_directions(
    what: &str,
    [x, gradient]: [&[f32]; 2],
    steps: impl Fn(f64) -> [f32; 3],
    loss: impl Fn(&[f32]) -> f64,
) {
    for seed in 0..DIRECTIONS {
        // Half of a direction is random, half is the gradient's own: so the derivative is not lost in rounding.
        let length = dot(gradient, gradient).sqrt().max(1e-30) as f32;
        let random = samples(100 + seed, x.len());
        let along = (x.len() as f32).sqrt() / length;
        let direction: Vec<f32> = random.iter().zip(gradient).map(|(r, g)| r + along * g).collect();
        let expected = dot(gradient, &direction);
        let error = |step: f32| {
            let moved = |by: f32| -> Vec<f32> { x.iter().zip(&direction).map(|(x, d)| x + by * d).collect() };
            let (ahead, behind) = (moved(step), moved(-step));
            // The numbers moved by what F32 left of the step.
            let exact: f64 = ahead
                .iter()
                .zip(&behind)
                .zip(gradient)
                .map(|((a, b), &g)| (f64::from(*a) - f64::from(*b)) * f64::from(g))
                .sum();
            ((loss(&ahead) - loss(&behind)) - exact).abs() / (2.0 * f64::from(step) * expected.abs()).max(1e-12)
        };
        let mut best = f64::INFINITY;
        for step in steps(expected) {
            best = best.min(error(step));
            if best <= TOLERANCE {
                break;
            }
        }
        assert!(best <= TOLERANCE, "{what}, direction {seed}: relative error {best:.2e} of derivative {expected:.3e}");
    }
}
