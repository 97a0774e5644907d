//! Intervals by resampling whole prompts: the tokens of one prompt depend on each other, prompts do not.
//!
//! Percentile bootstrap (B. Efron, 1979). **Invariant:** the draws come from a generator of our own with a given seed,
//! so the interval has the same bits everywhere.

use serde::Serialize;

use super::random::SplitMix64;

/// How often and from which seed to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BootstrapConfig {
    /// Number of resamples.
    pub resamples: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for BootstrapConfig {
    /// 1,000 resamples from seed 0.
    fn default() -> Self {
        Self { resamples: 1000, seed: 0 }
    }
}

/// A 95 % interval from resampling.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Lower end: 2.5 % of the resamples are below.
    pub low95: f64,
    /// Upper end.
    pub high95: f64,
    /// Independent items that were resampled.
    pub n: usize,
    /// Resamples whose figure is defined.
    pub resamples: usize,
}

/// The interval of `figure` over resamples of `n` items; `figure` gets the drawn indices and may be undefined on a
/// draw. `None` when there are no items or no resample has a figure.
///
/// ```
/// use behavior_eval::stats::{BootstrapConfig, bootstrap};
/// let values = [0.0, 1.0, 1.0, 1.0];
/// let mean = |draw: &[usize]| Some(draw.iter().map(|&i| values[i]).sum::<f64>() / draw.len() as f64);
/// let interval = bootstrap(values.len(), BootstrapConfig::default(), mean).unwrap();
/// assert!(interval.low95 < 0.75 && interval.high95 == 1.0);
/// ```
#[must_use]
pub fn bootstrap(
    n: usize,
    config: BootstrapConfig,
    mut figure: impl FnMut(&[usize]) -> Option<f64>,
) -> Option<Interval> {
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
    let low95 = crate::stats::quantile(&figures, 0.025)?;
    let high95 = crate::stats::quantile(&figures, 0.975)?;
    Some(Interval { low95, high95, n, resamples: figures.len() })
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
            assert!(interval.unwrap().resamples == 50);
            all
        };
        let draws = run(1);
        assert!(draws.iter().all(|&i| i < 7) && (0..7).all(|i| draws.contains(&i)));
        assert_eq!(draws, run(1));
        assert_ne!(draws, run(2));
    }

    #[test]
    fn equal_items_have_an_interval_of_no_width_and_nothing_has_none() {
        let interval = bootstrap(5, BootstrapConfig::default(), |_| Some(0.25)).unwrap();
        assert_eq!((interval.low95, interval.high95, interval.n), (0.25, 0.25, 5));
        assert!(bootstrap(0, BootstrapConfig::default(), |_| Some(0.0)).is_none());
        assert!(bootstrap(3, BootstrapConfig::default(), |_| None).is_none());
    }
}
