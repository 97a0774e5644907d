//! Intervals by resampling whole prompts: the tokens of one prompt depend on each other, prompts do not.
//!
//! Percentile bootstrap (B. Efron, 1979). **Invariant:** the draws come from a generator of our own with a given seed,
//! so the interval has the same bits everywhere.

use serde::Serialize;

use super::estimate::quantile;
use super::random::SplitMix64;

/// How often and from which seed to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct BootstrapConfig {
    pub resamples: usize,
    pub seed: u64,
}

impl Default for BootstrapConfig {
    /// 1,000 resamples from seed 0.
    fn default() -> Self {
        Self { resamples: 1000, seed: 0 }
    }
}

/// The interval of `figure` over resamples of `n` items; `figure` gets the drawn indices and may be undefined on a
/// draw. `None` when there are no items or no resample has a figure.
pub(super) fn bootstrap(
    n: usize,
    config: BootstrapConfig,
    mut figure: impl FnMut(&[usize]) -> Option<f64>,
) -> Option<(f64, f64)> {
    if n == 0 {
        return None;
    }
    let mut random = SplitMix64::new(config.seed);
    let mut draw = vec![0; n];
    let mut figures = Vec::with_capacity(config.resamples);
    for _ in 0..config.resamples {
        for index in &mut draw {
            *index = random.below(n);
        }
        figures.extend(figure(&draw).filter(|x| x.is_finite()));
    }
    figures.sort_unstable_by(f64::total_cmp);
    Some((quantile(&figures, 0.025)?, quantile(&figures, 0.975)?))
}

#[cfg(test)]
mod tests {
    use super::{BootstrapConfig, bootstrap};

    #[test]
    fn draws_are_indices_and_depend_on_the_seed_alone() {
        let run = |seed| {
            let mut all = Vec::new();
            let config = BootstrapConfig { resamples: 50, seed };
            let interval = bootstrap(7, config, |draw| {
                all.extend_from_slice(draw);
                Some(draw[0] as f64)
            });
            assert!(interval.is_some());
            all
        };
        let draws = run(1);
        assert!(draws.iter().all(|&i| i < 7) && (0..7).all(|i| draws.contains(&i)));
        assert_eq!(draws, run(1));
        assert_ne!(draws, run(2));
    }

    #[test]
    fn equal_items_have_an_interval_of_no_width_and_nothing_has_none() {
        assert_eq!(bootstrap(5, BootstrapConfig::default(), |_| Some(0.25)), Some((0.25, 0.25)));
        let values = [0.0, 1.0, 1.0, 1.0];
        let mean = |draw: &[usize]| Some(draw.iter().map(|&i| values[i]).sum::<f64>() / draw.len() as f64);
        let (low95, high95) = bootstrap(values.len(), BootstrapConfig::default(), mean).unwrap();
        assert!(low95 < 0.75 && high95 == 1.0);
        assert!(bootstrap(0, BootstrapConfig::default(), |_| Some(0.0)).is_none());
        assert!(bootstrap(3, BootstrapConfig::default(), |_| None).is_none());
    }
}
