//! Pearson's correlation of a stream of pairs.
//!
//! **Invariant:** pairs of equal numbers give exactly 1: the three sums are then the same number.

/// Sums of squared distances and their product, by Welford's recurrence.
#[derive(Clone, Debug, Default)]
pub(crate) struct Correlation {
    n: u64,
    mean: [f64; 2],
    squares: [f64; 2],
    products: f64,
}

impl Correlation {
    /// Takes the next pair.
    pub(crate) fn push(&mut self, x: f64, y: f64) {
        self.n += 1;
        let before = [x - self.mean[0], y - self.mean[1]];
        self.mean[0] += before[0] / self.n as f64;
        self.mean[1] += before[1] / self.n as f64;
        let after = [x - self.mean[0], y - self.mean[1]];
        self.squares[0] += before[0] * after[0];
        self.squares[1] += before[1] * after[1];
        self.products += before[0] * after[1];
    }

    /// `None` for fewer than two pairs, or where one side does not vary.
    pub(crate) fn value(&self) -> Option<f64> {
        let scale = (self.squares[0] * self.squares[1]).sqrt();
        (self.n > 1 && scale > 0.0 && scale.is_finite()).then(|| (self.products / scale).clamp(-1.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::Correlation;

    fn of(pairs: &[(f64, f64)]) -> Option<f64> {
        let mut correlation = Correlation::default();
        pairs.iter().for_each(|&(x, y)| correlation.push(x, y));
        correlation.value()
    }

    #[test]
    fn a_table_by_hand() {
        // Distances from the means 2 and 4: (-1, -2), (0, 1), (1, 1): 3 / sqrt(2 * 6).
        let r = of(&[(1.0, 2.0), (2.0, 5.0), (3.0, 5.0)]).unwrap();
        assert!((r - 3.0 / 12f64.sqrt()).abs() < 1e-15);
        assert_eq!(of(&[(1.0, 3.0), (2.0, 1.0)]), Some(-1.0));
    }

    #[test]
    fn equal_numbers_correlate_fully_and_constants_not_at_all() {
        let pairs: Vec<(f64, f64)> = (0..1000).map(|i| f64::from(i * 7919 % 613) * 0.0137).map(|x| (x, x)).collect();
        assert_eq!(of(&pairs), Some(1.0));
        assert_eq!(of(&[(1.0, 2.0), (1.0, 3.0)]), None);
        assert_eq!(of(&[(1.0, 2.0)]), None);
    }
}
