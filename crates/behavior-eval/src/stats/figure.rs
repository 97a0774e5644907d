//! Figures of the gates, each with what it was taken from and a 95 % interval.
//!
//! Shares of prompts carry Wilson's interval. Where one prompt may count several times (citations) or the figure is no
//! share (F1), prompts are drawn anew with replacement, a fixed number of times from a fixed seed, and the interval spans
//! the middle 95 % of the results (Efron's percentile bootstrap). Where (nearly) every draw gives the same value, Wilson's
//! interval over the prompts stands instead.

use serde::{Deserialize, Serialize};

use super::bootstrap::bootstrap;
use super::estimate::Share;

/// A figure with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Figure {
    /// The figure, between 0 and 1. 0 of 0 counts as 0, so a run without evidence never passes.
    pub value: f64,
    /// The upper count, where the figure is a quotient of counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numerator: Option<u64>,
    /// The count that it is divided by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denominator: Option<u64>,
    /// Prompts that it was taken from.
    pub n: u64,
    pub low95: f64,
    pub high95: f64,
    pub interval: IntervalKind,
}

/// How an interval was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "variants without a sentence speak for themselves")]
pub enum IntervalKind {
    Wilson,
    Bootstrap,
}

/// The counts that one prompt adds to a quotient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) numerator: u64,
    pub(crate) denominator: u64,
}

impl Counts {
    /// The quotient; 0 of 0 counts as 0.
    pub(crate) fn ratio(self) -> f64 {
        if self.denominator == 0 { 0.0 } else { self.numerator as f64 / self.denominator as f64 }
    }
}

impl Figure {
    /// A share of prompts.
    pub fn share(count: u64, n: u64) -> Self {
        // A share of 0 prompts may be anything from 0 to 1.
        let share = Share::of(count, n).unwrap_or(Share { value: 0.0, count: 0, n: 0, low95: 0.0, high95: 1.0 });
        Self {
            value: share.value,
            numerator: Some(share.count),
            denominator: Some(share.n),
            n: share.n,
            low95: share.low95,
            high95: share.high95,
            interval: IntervalKind::Wilson,
        }
    }

    /// The sum of all numerators over the sum of all denominators.
    pub(crate) fn quotient(prompts: &[Counts]) -> Self {
        let add = |sum: Counts, one: &Counts| Counts {
            numerator: sum.numerator + one.numerator,
            denominator: sum.denominator + one.denominator,
        };
        let sum = prompts.iter().fold(Counts::default(), add);
        let drawn = |draw: &[usize]| draw.iter().map(|&i| &prompts[i]).fold(Counts::default(), add).ratio();
        let mut figure = Self::drawn(prompts.len(), sum.ratio(), drawn);
        (figure.numerator, figure.denominator) = (Some(sum.numerator), Some(sum.denominator));
        if sum.denominator == 0 {
            (figure.low95, figure.high95) = (0.0, 1.0);
        }
        figure
    }

    /// The mean of one value per prompt.
    pub(crate) fn mean(values: &[f64]) -> Self {
        let mean = |sum: f64| if values.is_empty() { 0.0 } else { sum / values.len() as f64 };
        Self::drawn(values.len(), mean(values.iter().sum()), |draw| mean(draw.iter().map(|&i| values[i]).sum()))
    }

    /// A figure of `n` prompts whose value for any draw of them is known.
    pub(crate) fn drawn(n: usize, value: f64, of: impl Fn(&[usize]) -> f64) -> Self {
        let figure = Self {
            value,
            numerator: None,
            denominator: None,
            n: n as u64,
            low95: 0.0,
            high95: 1.0,
            interval: IntervalKind::Bootstrap,
        };
        match bootstrap(n, of) {
            None => figure,
            Some((low95, high95)) if low95 == high95 => figure.without_spread(),
            Some((low95, high95)) => Self { low95: low95.min(value), high95: high95.max(value), ..figure },
        }
    }

    /// Wilson's interval for a value that no draw changes.
    fn without_spread(self) -> Self {
        let n = self.n as f64;
        // Such a value is 0 or 1 in all but odd cases; those take the interval of the nearest share.
        let Some(share) = Share::of((self.value * n).round() as u64, self.n) else { return self };
        let (low95, high95) = (share.low95.min(self.value), share.high95.max(self.value));
        Self { low95, high95, interval: IntervalKind::Wilson, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, Figure, IntervalKind};

    #[test]
    fn a_quotient_of_clustered_counts() {
        // Ten prompts of 4 citations: half of them all right, half all wrong. The interval must be that of 10 prompts,
        // not of 40 citations.
        let prompts: Vec<Counts> =
            (0..10).map(|i| Counts { numerator: if i % 2 == 0 { 4 } else { 0 }, denominator: 4 }).collect();
        let figure = Figure::quotient(&prompts);
        assert_eq!((figure.value, figure.numerator, figure.denominator, figure.n), (0.5, Some(20), Some(40), 10));
        assert_eq!((figure.low95, figure.high95, figure.interval), (0.2, 0.8, IntervalKind::Bootstrap));
        assert_eq!(figure, Figure::quotient(&prompts));
    }

    #[test]
    fn nothing_and_certainty() {
        let nothing = Figure::quotient(&[Counts::default(); 5]);
        assert_eq!((nothing.value, nothing.low95, nothing.high95), (0.0, 0.0, 1.0));
        assert_eq!(Figure::share(0, 0).high95, 1.0);
        let empty = Figure::mean(&[]);
        assert_eq!((empty.value, empty.low95, empty.high95), (0.0, 0.0, 1.0));
        let all = Figure::quotient(&[Counts { numerator: 3, denominator: 3 }; 20]);
        assert_eq!((all.value, all.high95, all.interval), (1.0, 1.0, IntervalKind::Wilson));
        assert!(all.low95 > 0.8 && all.low95 < 0.9, "{all:?}");
        let mean = Figure::mean(&[0.5, 0.5, 0.5]);
        assert!(mean.low95 <= 0.5 && mean.high95 >= 0.5 && mean.interval == IntervalKind::Wilson);
    }
}
