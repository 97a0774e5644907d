//! Intervals by resampling whole prompts: the tokens of one prompt depend on each other, prompts do not.
//!
//! Percentile bootstrap (B. Efron, 1979). **Invariant:** the draws come from a generator of our own with a given seed,
//! so the interval has the same bits everywhere.

use serde::Serialize;

use super::estimate::quantile;
use super::random::SplitMix64;

const RESAMPLES: usize = 2_000;
const SEED: u64 = 0;

/// The interval of `figure` over resamples of `n` items; `figure` gets the drawn indices. `None` when there are no items.
pub(super) fn bootstrap(n: usize, mut figure: impl FnMut(&[usize]) -> f64) -> Option<(f64, f64)> {
    if n == 0 {
        return None;
    }
    let mut random = SplitMix64::new(SEED);
    let mut draw = vec![0; n];
    let mut figures = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        for index in &mut draw {
            *index = random.below(n);
        }
        figures.push(figure(&draw));
    }
    figures.sort_unstable_by(f64::total_cmp);
    Some((quantile(&figures, 0.025)?, quantile(&figures, 0.975)?))
}

/// How far two measurements of the same items lie apart, with the 95 % interval over resampled items.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Difference {
    /// The mean of `b - a`.
    pub value: f64,
    pub low95: f64,
    pub high95: f64,
}

/// The mean of `b[i] - a[i]` with its paired bootstrap interval; `None` for no items or for lists of two lengths.
///
/// ```
/// use behavior_eval::stats::paired_difference;
/// let difference = paired_difference(&[1.0, 2.0, 3.0], &[1.5, 2.5, 3.5]).unwrap();
/// assert_eq!((difference.value, difference.low95, difference.high95), (0.5, 0.5, 0.5));
/// assert!(paired_difference(&[1.0], &[]).is_none());
/// ```
pub fn paired_difference(a: &[f64], b: &[f64]) -> Option<Difference> {
    if a.len() != b.len() {
        return None;
    }
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| b - a).collect();
    let mean = |draw: &[usize]| draw.iter().map(|&i| differences[i]).sum::<f64>() / draw.len() as f64;
    let (low95, high95) = bootstrap(differences.len(), mean)?;
    let value = differences.iter().sum::<f64>() / differences.len() as f64;
    Some(Difference { value, low95, high95 })
}

#[cfg(test)]
mod tests {
    use super::bootstrap;

    #[test]
    fn every_call_draws_the_same_indices() {
        let run = || {
            let mut all = Vec::new();
            let interval = bootstrap(7, |draw| {
                all.extend_from_slice(draw);
                draw[0] as f64
            });
            assert_eq!(interval, Some((0.0, 6.0)));
            all
        };
        let draws = run();
        assert!(draws.iter().all(|&i| i < 7) && (0..7).all(|i| draws.contains(&i)));
        assert!(draws.chunks_exact(7).any(|draw| draw != &draws[..7]), "each resample is another");
        assert_eq!(draws, run());
    }

    #[test]
    fn equal_items_have_an_interval_of_no_width_and_nothing_has_none() {
        assert_eq!(bootstrap(5, |_| 0.25), Some((0.25, 0.25)));
        let values = [0.0, 1.0, 1.0, 1.0];
        let mean = |draw: &[usize]| draw.iter().map(|&i| values[i]).sum::<f64>() / draw.len() as f64;
        let (low95, high95) = bootstrap(values.len(), mean).unwrap();
        assert!(low95 < 0.75 && high95 == 1.0);
        assert!(bootstrap(0, |_| 0.0).is_none());
    }
}
