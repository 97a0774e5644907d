//! A timed trial on real rows, which finds the fastest of several kernels with equal results on this machine.
//!
//! **Invariant:** a trial changes speed, never results.

use ternary_core::ActMode;

use crate::activations::ActivationBuffer;
use crate::arch::Isa;
use crate::matmul::{KernelKind, Linear, TABLE_ROWS};
use crate::pool::Pool;

/// Repetitions of a candidate; the fastest counts.
const REPETITIONS: usize = 7;

/// Factor by which another kernel must be faster than the default, so that noise does not decide.
const MARGIN: f64 = 1.08;

/// Tokens of the batch that stands for a prompt.
const BATCH: usize = 32;

/// Weights of the rows that are timed: enough for a stable time, at most a millisecond per token on one core.
const SAMPLE_WEIGHTS: usize = 1 << 20;

/// A type of weights, by the properties that give it a trial of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    /// Name of the weight type.
    pub(crate) weights: &'static str,
    /// Length of a row.
    pub(crate) cols: usize,
    /// Precision of the activations.
    pub(crate) mode: ActMode,
    /// The kernel of the layout that the weights lie in.
    pub(crate) layout: KernelKind,
}

/// A kernel on a level.
pub(crate) type Candidate = (KernelKind, Isa);

/// The rows of `linear` that a trial runs on.
pub(crate) fn sample(linear: &Linear) -> Option<Linear> {
    // With fewer rows no token tables would be made, and the trial would not measure their gain.
    let rows = (SAMPLE_WEIGHTS / linear.cols().max(1)).max(TABLE_ROWS).min(linear.rows());
    linear.slice_rows(0, rows).ok()
}

/// The first candidate, unless another one is faster by a margin with one token and not slower by that margin with a
/// batch. A candidate that cannot be made is left out.
pub(crate) fn fastest(sample: &Linear, candidates: &[Candidate]) -> Option<Candidate> {
    let times = candidates.iter().filter_map(|&candidate| {
        let (one, batch) = (time(sample, candidate, 1)?, time(sample, candidate, BATCH)?);
        Some(Times { candidate, one, batch })
    });
    pick(&times.collect::<Vec<_>>())
}

/// Seconds of the product with one token, and with a batch.
#[derive(Clone, Copy)]
struct Times {
    candidate: Candidate,
    one: f64,
    batch: f64,
}

fn pick(times: &[Times]) -> Option<Candidate> {
    let default = *times.first()?;
    let as_good = times.iter().filter(|times| times.batch < default.batch * MARGIN);
    let best = as_good.min_by(|a, b| a.one.total_cmp(&b.one)).unwrap_or(&default);
    Some(if best.one * MARGIN < default.one { best.candidate } else { default.candidate })
}

/// Seconds of the product with `n` tokens.
fn time(sample: &Linear, (kernel, isa): Candidate, n: usize) -> Option<f64> {
    let linear = sample.clone().with_kernel(kernel).and_then(|linear| linear.with_isa(isa)).ok()?;
    let x: Vec<f32> = (0..n * linear.cols()).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
    let mut acts = ActivationBuffer::new();
    acts.set(&x, n, linear.cols());
    acts.quantize(linear.act_mode());
    let mut y = vec![0.0; n * linear.rows()];
    let once = || {
        let start = std::time::Instant::now();
        linear.forward(&Pool::serial(), &acts, &mut y);
        start.elapsed().as_secs_f64()
    };
    // The first run warms the caches and makes the tables, which many products share.
    std::iter::repeat_with(once).take(1 + REPETITIONS).skip(1).min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    const I2S: Candidate = (KernelKind::I2s, Isa::Scalar);
    const TL1: Candidate = (KernelKind::Tl1, Isa::Scalar);

    #[test]
    fn the_default_stays_unless_another_is_clearly_faster_and_no_slower_with_many_tokens() {
        let choice = |one, batch| {
            let default = Times { candidate: I2S, one: 1.0, batch: 9.0 };
            pick(&[default, Times { candidate: TL1, one, batch }])
        };
        assert_eq!(choice(0.95, 9.0), Some(I2S));
        assert_eq!(choice(0.80, 9.0), Some(TL1));
        assert_eq!(choice(0.80, 12.0), Some(I2S));
        assert_eq!(choice(1.5, 5.0), Some(I2S));
        assert_eq!(pick(&[]), None);
    }

    #[test]
    fn every_candidate_is_run_and_impossible_ones_are_out() {
        let tensor = ternary_core::TernaryTensor::quantize(
            ternary_core::Packing::Tq2_0,
            ternary_core::Rounding::AbsMean,
            3,
            256,
            &[0.5; 768],
            None,
        )
        .unwrap();
        let linear = sample(&Linear::ternary(tensor, ActMode::F32).unwrap()).unwrap();
        assert_eq!(linear.rows(), 3);
        assert_eq!(fastest(&linear, &[TL1]), None, "no look-ups with F32 activations");
        assert_eq!(fastest(&linear, &[TL1, I2S]), Some(I2S));
    }
}
