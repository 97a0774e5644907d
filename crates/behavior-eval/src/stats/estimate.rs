//! Means with standard errors, shares with intervals, quantiles.

use serde::Serialize;

/// A figure and how far chance may have moved it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Estimate {
    pub value: f64,
    /// One standard error of it.
    pub standard_error: f64,
}

/// A share of positions with its 95 % Wilson interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Share {
    pub value: f64,
    /// Positions that have the property.
    pub count: u64,
    pub n: u64,
    pub low95: f64,
    pub high95: f64,
}

impl Share {
    /// The share of `count` in `n`; `None` when there is nothing to take a share of.
    ///
    /// ```
    /// use behavior_eval::stats::Share;
    /// let share = Share::of(8, 10).unwrap();
    /// assert!(share.low95 < 0.8 && 0.8 < share.high95);
    /// assert!(Share::of(0, 0).is_none());
    /// ```
    pub fn of(count: u64, n: u64) -> Option<Self> {
        if n == 0 || count > n {
            return None;
        }
        const Z: f64 = 1.959_963_984_540_054;
        let (size, value) = (n as f64, count as f64 / n as f64);
        let spread = Z * Z / size;
        let center = value + spread / 2.0;
        let half = Z * ((value * (1.0 - value) + spread / 4.0) / size).sqrt();
        // Rounding must not move the two ends that are exact.
        let low95 = if count == 0 { 0.0 } else { (center - half) / (1.0 + spread) };
        let high95 = if count == n { 1.0 } else { (center + half) / (1.0 + spread) };
        Some(Self { value, count, n, low95, high95 })
    }
}

/// Mean and variance of a stream, by Welford's recurrence.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moments {
    n: u64,
    mean: f64,
    /// Sum of squared distances from the mean.
    squares: f64,
}

impl Moments {
    /// Takes the next number.
    pub(crate) fn push(&mut self, x: f64) {
        self.n += 1;
        let before = x - self.mean;
        self.mean += before / self.n as f64;
        self.squares += before * (x - self.mean);
    }

    pub(crate) fn n(&self) -> u64 {
        self.n
    }

    /// The mean, 0 for an empty stream.
    pub(crate) fn mean(&self) -> f64 {
        self.mean
    }

    /// The mean, `None` for an empty stream.
    pub(crate) fn mean_of_some(&self) -> Option<f64> {
        (self.n > 0).then_some(self.mean)
    }

    /// The mean with the standard error `s / sqrt(n)`; the error is 0 below two numbers.
    pub(crate) fn estimate(&self) -> Estimate {
        let standard_error = match self.n {
            0 | 1 => 0.0,
            n => (self.squares / (n - 1) as f64 / n as f64).sqrt(),
        };
        Estimate { value: self.mean, standard_error }
    }
}

/// The quantile of ascending numbers, interpolated linearly between the two at `q (n - 1)`; `None` for none.
///
/// ```
/// assert_eq!(behavior_eval::stats::quantile(&[1.0, 2.0, 4.0], 0.75), Some(3.0));
/// ```
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = q.clamp(0.0, 1.0) * last as f64;
    let below = (place.floor() as usize).min(last);
    let share = place - below as f64;
    let above = sorted[(below + 1).min(last)];
    Some(sorted[below] + share * (above - sorted[below]))
}

#[cfg(test)]
mod tests {
    use super::{Moments, Share, quantile};

    #[test]
    fn moments_of_a_small_table() {
        let mut moments = Moments::default();
        for x in [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0] {
            moments.push(x);
        }
        // mean 5, squared distances 32, sample variance 32/7
        let estimate = moments.estimate();
        assert!((estimate.value - 5.0).abs() < 1e-15);
        assert!((estimate.standard_error - (32.0f64 / 7.0 / 8.0).sqrt()).abs() < 1e-15);
    }

    #[test]
    fn quantiles_interpolate() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        assert_eq!(quantile(&sorted, 0.0), Some(1.0));
        assert_eq!(quantile(&sorted, 0.5), Some(3.0));
        assert_eq!(quantile(&sorted, 1.0), Some(8.0));
        assert!((quantile(&sorted, 0.9).unwrap() - 6.8).abs() < 1e-12);
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[3.0], 0.999), Some(3.0));
    }

    /// Values of the published formula, worked out by hand for 8 of 10 and for the ends.
    #[test]
    fn wilson_intervals() {
        let share = Share::of(8, 10).unwrap();
        assert!((share.low95 - 0.490_16).abs() < 1e-4 && (share.high95 - 0.943_32).abs() < 1e-4, "{share:?}");
        assert_eq!(Share::of(0, 10).unwrap().low95, 0.0);
        assert_eq!(Share::of(10, 10).unwrap().high95, 1.0);
        assert!(Share::of(1, 0).is_none() && Share::of(3, 2).is_none());
    }
}
